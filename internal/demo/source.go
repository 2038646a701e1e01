package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/demo/shop"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const (
	database    = "shop"
	slotName    = "dbmazz_slot"
	ownerRole   = "shop_owner"
	captureRole = "dbmazz"

	// passwordSize keeps the lines short that people copy; nothing outlives the demo.
	passwordSize = 12
)

// source is the throw-away PostgreSQL.
type source struct {
	server   *pgtest.Server
	password string // Of both roles.
}

// startSource starts a cluster that writes to disk for certain, as a real one does.
func startSource(ctx context.Context, dir string, settings map[string]string) (*source, error) {
	server, err := pgtest.Start(ctx, pgtest.Options{
		DataDir: filepath.Join(dir, "postgres"), Password: rand.Text(), Fsync: true, Settings: settings,
	})
	if err != nil {
		return nil, err
	}
	s := &source{server: server, password: rand.Text()[:passwordSize]}
	// The log lies in the data folder; people look for it beside the others.
	if err := os.Symlink(filepath.Join("postgres", filepath.Base(server.LogFile())), filepath.Join(dir, postgresLog)); err != nil {
		return s, fmt.Errorf("link the log of PostgreSQL: %w", err)
	}
	return s, s.create(ctx)
}

// create makes the database, the tables and the roles. The capture role is no superuser, and the database prints times
// in a way that nobody may depend on.
func (s *source) create(ctx context.Context) error {
	admin, err := s.server.Connect(ctx, "postgres")
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
	for _, statement := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", ownerRole, s.password),
		fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION PASSWORD '%s' IN ROLE %s", captureRole, s.password, ownerRole),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", database, ownerRole),
		fmt.Sprintf("ALTER DATABASE %s SET timezone = 'Asia/Kolkata'", database),
		fmt.Sprintf("ALTER DATABASE %s SET datestyle = 'German'", database),
		fmt.Sprintf("ALTER DATABASE %s SET bytea_output = 'escape'", database),
		fmt.Sprintf("ALTER DATABASE %s SET extra_float_digits = 0", database),
	} {
		if _, err := admin.Exec(ctx, statement); err != nil {
			return fmt.Errorf("set up PostgreSQL: %w", err)
		}
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(shop.Create(ctx, conn), conn.Close(ctx))
}

// url is the connection string of a role.
func (s *source) url(role string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, s.password), Host: s.address(), Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *source) address() string { return fmt.Sprintf("%s:%d", s.server.Host(), s.server.Port()) }

// connect opens a connection as the tables' owner.
func (s *source) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.url(ownerRole))
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return conn, nil
}

// slot is what PostgreSQL says about the replication slot.
type slot struct {
	exists    bool
	lost      bool  // PostgreSQL no longer keeps the WAL that it needs.
	pid       int32 // Of the walsender, 0 while nobody reads.
	confirmed uint64
}

const slotQuery = `SELECT coalesce(active_pid, 0), coalesce(confirmed_flush_lsn - '0/0', 0)::bigint, coalesce(to_jsonb(s) ->> 'wal_status', '') = 'lost'
FROM pg_replication_slots s WHERE slot_name = $1`

func readSlot(ctx context.Context, conn *pgx.Conn) (slot, error) {
	s := slot{exists: true}
	err := conn.QueryRow(ctx, slotQuery, slotName).Scan(&s.pid, &s.confirmed, &s.lost)
	if errors.Is(err, pgx.ErrNoRows) {
		return slot{}, nil
	}
	if err != nil {
		return slot{}, fmt.Errorf("look at the replication slot: %w", err)
	}
	return s, nil
}

// head is where the source's write-ahead log ends.
func head(ctx context.Context, conn *pgx.Conn) (uint64, error) {
	var lsn uint64
	if err := conn.QueryRow(ctx, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").Scan(&lsn); err != nil {
		return 0, fmt.Errorf("ask for the end of the write-ahead log: %w", err)
	}
	return lsn, nil
}
