package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// publication is the name of the publication, which has to be there before the changes are.
const publication = "bench"

// source is the throw-away PostgreSQL. Commits do not wait for its disk: what is measured begins behind that.
type source struct {
	server *pgtest.Server
	admin  *pgx.Conn
}

func startSource(ctx context.Context) (*source, error) {
	server, err := pgtest.Start(ctx, pgtest.Options{Settings: map[string]string{
		"max_wal_senders": "100", "max_replication_slots": "200", "max_wal_size": "8GB", "synchronous_commit": "off",
		"checkpoint_timeout": "1h", "shared_buffers": "512MB",
	}})
	if err != nil {
		return nil, err
	}
	s := &source{server: server}
	if s.admin, err = server.Connect(ctx, "postgres"); err != nil {
		return s, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *source) close(ctx context.Context) error {
	var errs []error
	if s.admin != nil {
		errs = append(errs, s.admin.Close(ctx))
	}
	return errors.Join(append(errs, s.server.Close(), pgtest.Shutdown())...) //nolint:contextcheck // They have bounds of their own.
}

// database is one with the changes of a workload in the log and a slot before them.
type database struct {
	*source
	workload workload
	name     string
	rows     int // row changes, with the mark
	// mark is where the log was before the last transaction, end right after it.
	mark, end string
	wants     map[string]sums
}

// slotOf is the slot that is copied for each run.
func slotOf(database string) string { return database + "_base" }

// prepare makes the changes of a workload.
func (s *source) prepare(ctx context.Context, w workload, changes int) (*database, error) {
	d := &database{source: s, workload: w, name: "bench_" + strings.ReplaceAll(w.name, "-", "_"), rows: changes + 1}
	if err := d.create(ctx, w, changes); err != nil {
		return d, fmt.Errorf("prepare workload %s: %w", w.name, err)
	}
	return d, nil
}

func (d *database) create(ctx context.Context, w workload, changes int) error {
	if _, err := d.admin.Exec(ctx, "CREATE DATABASE "+d.name); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
	for _, statement := range []string{
		w.schema, "CREATE PUBLICATION " + publication + " FOR TABLE " + strings.Join(w.tables, ", "),
		w.before, "CHECKPOINT", "SELECT pg_create_logical_replication_slot('" + slotOf(d.name) + "', 'pgoutput')", w.load,
	} {
		if _, err := conn.Exec(ctx, w.statement(statement, changes)); err != nil {
			return fmt.Errorf("run %.60q: %w", statement, err)
		}
	}
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&d.mark); err != nil {
		return fmt.Errorf("ask for the position: %w", err)
	}
	if _, err := conn.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return fmt.Errorf("wait for the disk: %w", err)
	}
	if _, err := conn.Exec(ctx, w.statement(w.mark, changes)); err != nil {
		return fmt.Errorf("make the last change: %w", err)
	}
	// What a checkpoint writes after it is confirmed only once the server tells of it, which may take seconds.
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&d.end); err != nil {
		return fmt.Errorf("ask for the position: %w", err)
	}
	if _, err := conn.Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("write what is dirty: %w", err)
	}
	d.wants, err = wanted(ctx, conn, w.tables, w.changed)
	return err
}

// sums are what source and sink are compared by. Numbers are added up by what is left of each after a division, so that
// no number of rows with times in them is too much for 64 bits.
type sums struct {
	Rows, IDs, Numbers, Bytes int64
}

// numberModulus is what the numbers are divided by. Both Go and PostgreSQL give the rest the sign of the number.
const numberModulus = 1_000_000_007

// wanted asks for the sums of tables.
func wanted(ctx context.Context, conn *pgx.Conn, tables []string, where string) (map[string]sums, error) {
	if where == "" {
		where = "true"
	}
	wants := map[string]sums{}
	for _, table := range tables {
		var s sums
		query := "SELECT count(*), coalesce(sum(id), 0)::bigint, coalesce(sum(n % " + strconv.Itoa(numberModulus) + "), 0)::bigint, coalesce(sum(octet_length(s)), 0) FROM " + table + " WHERE " + where
		if err := conn.QueryRow(ctx, query).Scan(&s.Rows, &s.IDs, &s.Numbers, &s.Bytes); err != nil {
			return nil, fmt.Errorf("sum up table %s: %w", table, err)
		}
		wants[table] = s
	}
	return wants, nil
}

// drop removes the database and its slots.
func (d *database) drop(ctx context.Context) error {
	const slots = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`
	if _, err := d.admin.Exec(ctx, slots, d.name); err != nil {
		return fmt.Errorf("drop slots of %s: %w", d.name, err)
	}
	if _, err := d.admin.Exec(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	_, err := d.admin.Exec(ctx, "CHECKPOINT") // The log goes.
	return err
}

// slot makes a slot that stands before the changes.
func (d *database) slot(ctx context.Context, name string) error {
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
	if _, err := conn.Exec(ctx, "SELECT pg_copy_logical_replication_slot($1, $2)", slotOf(d.name), name); err != nil {
		return fmt.Errorf("copy slot: %w", err)
	}
	return nil
}

// dropSlot removes the slot of a run, once nobody reads it.
func (d *database) dropSlot(ctx context.Context, name string) error {
	return poll(ctx, 30*time.Second, 50*time.Millisecond, "slot "+name+" to be free", func(ctx context.Context) (bool, error) {
		var free bool
		if err := d.admin.QueryRow(ctx, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", name).Scan(&free); err != nil {
			return false, fmt.Errorf("look at slot %s: %w", name, err)
		}
		if !free {
			return false, nil
		}
		_, err := d.admin.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name)
		return err == nil, nil // Somebody may just have taken it: asked again.
	})
}

// confirmed tells whether the slot is confirmed up to the end of the changes.
func (d *database) confirmed(ctx context.Context, slot string) (bool, error) {
	var done bool
	err := d.admin.QueryRow(ctx, "SELECT confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", slot, d.end).Scan(&done)
	if err != nil {
		return false, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	return done, nil
}

// sent tells whether the walsender has sent everything.
func (d *database) sent(ctx context.Context, pid int) (bool, error) {
	var done bool
	err := d.admin.QueryRow(ctx, "SELECT coalesce(sent_lsn >= $2::pg_lsn, false) FROM pg_stat_replication WHERE pid = $1", pid, d.end).Scan(&done)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("the walsender %d has ended early", pid)
	}
	if err != nil {
		return false, fmt.Errorf("look at walsender %d: %w", pid, err)
	}
	return done, nil
}

// walsender is the process of the server that sends the changes of a slot.
type walsender struct {
	pid   int
	began time.Time
	cpu   time.Duration // when it began
}

// awaitWalsender waits until somebody reads the slot. A reader of few rows may be done before it is seen, which gone, if it
// is not nil, tells; the walsender that is returned has taken no time then.
func (s *source) awaitWalsender(ctx context.Context, slot string, gone func() bool) (w walsender, err error) {
	asked := time.Now()
	err = poll(ctx, 60*time.Second, 2*time.Millisecond, "a reader of slot "+slot, func(ctx context.Context) (bool, error) {
		if err := s.admin.QueryRow(ctx, "SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&w.pid); err != nil {
			return false, fmt.Errorf("look at slot %s: %w", slot, err)
		}
		return w.pid != 0 || gone != nil && gone(), nil
	})
	if w.pid == 0 {
		w.began = asked
		return w, err
	}
	w.began, w.cpu = time.Now(), cpuOf(w.pid)
	return w, err
}

// used is the processor time of the walsender since it began.
func (w *walsender) used() time.Duration {
	if w.pid == 0 {
		return 0
	}
	return cpuOf(w.pid) - w.cpu
}

// replication makes the URL of a connection that may use replication commands.
func replication(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("read the server's address: %w", err)
	}
	q := u.Query()
	q.Set("replication", "database")
	u.RawQuery = q.Encode()
	return u.String(), nil
}
