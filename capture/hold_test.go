package capture_test

import (
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// holdSlot reads a slot as another program would.
func holdSlot(t *testing.T, db *pgtest.DB, slot, publication string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), db.URL()+"&replication=database&application_name=stranger")
	if err != nil {
		t.Fatal(err)
	}
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{"proto_version '1'", "publication_names '" + publication + "'"}}
	if err := pglogrepl.StartReplication(t.Context(), conn, slot, 0, options); err != nil {
		t.Fatal(err)
	}
	return conn
}
