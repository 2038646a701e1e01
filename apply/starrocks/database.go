package starrocks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/go-sql-driver/mysql"
)

// hasDatabase tells whether the configured database exists, as far as the user may see.
func (s *Sink) hasDatabase(ctx context.Context) (bool, error) {
	var name string
	err := s.db.QueryRowContext(ctx, "SELECT SCHEMA_NAME FROM information_schema.schemata WHERE SCHEMA_NAME = ?", s.config.Database).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// createDatabase creates the configured database if that is asked for and it is missing.
func (s *Sink) createDatabase(ctx context.Context) error {
	if !s.config.CreateDatabase {
		return nil
	}
	exists, err := s.hasDatabase(ctx)
	if err != nil {
		return fmt.Errorf("look for database %q in StarRocks: %w", s.config.Database, sqlError(err))
	}
	if exists {
		return nil
	}
	err = s.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(s.config.Database))
	var my *mysql.MySQLError
	switch {
	case errors.As(err, &my):
		return permanent(fmt.Errorf("create database %q in StarRocks: %w; create it, or GRANT CREATE DATABASE ON CATALOG default_catalog TO USER %s",
			s.config.Database, err, quoteText(s.config.User)))
	case err != nil:
		return fmt.Errorf("create database %q in StarRocks: %w", s.config.Database, err)
	}
	s.config.Logger.InfoContext(ctx, "database created", slog.String("database", s.config.Database))
	return nil
}
