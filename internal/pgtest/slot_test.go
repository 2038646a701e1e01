package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// holdSlot starts streaming from a slot and returns the open connection.
func holdSlot(t *testing.T, db *pgtest.DB, slot string) *pgconn.PgConn {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgconn.Connect(ctx, db.URL()+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names 'p'"}}
	if err := pglogrepl.StartReplication(ctx, conn, slot, 0, options); err != nil {
		t.Fatal(err)
	}
	return conn
}
