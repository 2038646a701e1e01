package starrocks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// codeAccessDenied is MySQL's error code for a wrong user or password.
const codeAccessDenied = 1045

// sqlError makes the driver's errors fit for an operator: the credentials are named by
// their variables. It returns nil for nil.
func sqlError(err error) error {
	var my *mysql.MySQLError
	if errors.As(err, &my) && my.Number == codeAccessDenied {
		return permanent(fmt.Errorf("access denied: check SINK_USER and SINK_PASSWORD, and the privileges of the user: %w", err))
	}
	return reachError(err, sqlSettings)
}

// Check implements [apply.Sink].
func (s *Sink) Check(ctx context.Context) error {
	if err := s.checkSQL(ctx); err != nil {
		return err
	}
	// A front end answers about a label that nobody has used; a back end answers
	// that it does not know the request, so the front end is asked.
	const label = "dbmazz_check"
	_, err := s.load.state(ctx, label)
	if s.config.CreateDatabase && errors.Is(err, errUnknownDatabase) {
		return nil // Prepare creates it.
	}
	if err != nil {
		return fmt.Errorf("Sink HTTP connection failed: %w", err)
	}
	return nil
}

func (s *Sink) checkSQL(ctx context.Context) error {
	failed := func(err error) error {
		return fmt.Errorf("StarRocks connection failed to '%s': %w", s.config.MySQLAddr, sqlError(err))
	}
	var version string
	if err := s.db.QueryRowContext(ctx, "SELECT current_version()").Scan(&version); err != nil {
		var my *mysql.MySQLError
		if errors.As(err, &my) && my.Number != codeAccessDenied {
			return permanent(fmt.Errorf("ask for the version at %s: is this StarRocks? %w", s.config.MySQLAddr, err))
		}
		return failed(err)
	}
	if err := checkVersion(version); err != nil {
		return permanent(err)
	}
	exists, err := s.hasDatabase(ctx)
	if err != nil {
		return failed(err)
	}
	if !exists && !s.config.CreateDatabase {
		return permanent(fmt.Errorf("database %q does not exist in StarRocks, or user %q may not see it: run CREATE DATABASE %s; or correct SINK_DATABASE",
			s.config.Database, s.config.User, quoteName(s.config.Database)))
	}
	return nil
}

// versionMin is the oldest version that works: before it partial updates lack their
// mode or their condition. versionMicros is the first that shows the microseconds of a
// DATETIME.
var (
	versionMin    = [3]int{3, 1, 3}
	versionMicros = [3]int{3, 3, 5}
)

// checkVersion refuses what is too old. The text looks like "3.3.15-7ac1b9c".
func checkVersion(text string) error {
	if !isAtLeast(text, versionMin) {
		return fmt.Errorf("StarRocks %s is too old: dbmazz needs %d.%d.%d or newer", text, versionMin[0], versionMin[1], versionMin[2])
	}
	return nil
}

// isAtLeast compares versions. One that was built from a branch has the branch's name,
// such as main-3c2f8b1, and is newer than any that is asked for; a part that is no
// number counts as zero.
func isAtLeast(text string, want [3]int) bool {
	number, _, _ := strings.Cut(strings.TrimSpace(text), "-")
	parts := strings.Split(number, ".")
	if _, err := strconv.Atoi(parts[0]); err != nil {
		return true
	}
	var have [3]int
	for i := range min(len(parts), len(have)) {
		have[i], _ = strconv.Atoi(parts[i]) // Zero if it is no number.
	}
	return slices.Compare(have[:], want[:]) >= 0
}

// nodes implements directory.
func (s *Sink) nodes(ctx context.Context) ([]endpoint, error) {
	var all []endpoint
	var errs []error
	for _, query := range []string{"SHOW BACKENDS", "SHOW COMPUTE NODES", "SHOW FRONTENDS"} {
		rows, err := s.show(ctx, query)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", query, err))
			continue
		}
		for _, row := range rows {
			all = append(all, endpoint{row.host(), row["httpport"]})
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

// frontEnd implements directory.
func (s *Sink) frontEnd(ctx context.Context) (endpoint, error) {
	rows, err := s.show(ctx, "SHOW FRONTENDS")
	if err != nil {
		return endpoint{}, fmt.Errorf("find a front end by SHOW FRONTENDS, because SINK_URL is that of a back end: %w", err)
	}
	var found *endpoint
	for _, row := range rows {
		if !row.alive() {
			continue
		}
		e := endpoint{row.host(), row["httpport"]}
		if strings.EqualFold(row["role"], "LEADER") {
			return e, nil
		}
		if found == nil {
			found = &e
		}
	}
	if found == nil {
		return endpoint{}, errors.New("find a front end by SHOW FRONTENDS, because SINK_URL is that of a back end: none is alive")
	}
	return *found, nil
}

// aliveBackends counts the nodes that can hold replicas.
func (s *Sink) aliveBackends(ctx context.Context) (int, error) {
	rows, err := s.show(ctx, "SHOW BACKENDS")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, row := range rows {
		if row.alive() {
			n++
		}
	}
	return n, nil
}

// shownRow is a row of a SHOW statement, by the names of the columns in lower case. What is
// NULL is left out.
type shownRow map[string]string

func (r shownRow) alive() bool { return strings.EqualFold(r["alive"], "true") }

func (r shownRow) host() string {
	if ip := r["ip"]; ip != "" {
		return ip
	}
	return r["host"]
}

// show runs a statement whose columns differ between versions.
func (s *Sink) show(ctx context.Context, query string, args ...any) ([]shownRow, error) {
	result, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, sqlError(err)
	}
	defer result.Close()
	names, err := result.Columns()
	if err != nil {
		return nil, err
	}
	var rows []shownRow
	for result.Next() {
		values := make([]sql.NullString, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := result.Scan(into...); err != nil {
			return nil, err
		}
		row := make(shownRow, len(names))
		for i, name := range names {
			if values[i].Valid {
				row[strings.ToLower(name)] = values[i].String
			}
		}
		rows = append(rows, row)
	}
	return rows, sqlError(errors.Join(result.Err(), result.Close()))
}

func (s *Sink) tableName(table string) string {
	return quoteName(s.config.Database) + "." + quoteName(table)
}
