package capture

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// between calls a function before the query with a number.
type between struct {
	at int
	do func()
}

func (b *between) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if !strings.HasPrefix(strings.ToUpper(strings.TrimSpace(q.SQL)), "SELECT") {
		return ctx
	}
	if b.at--; b.at == -1 {
		b.do()
	}
	return ctx
}

func (*between) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestAChangeThatIsCommittedWhileTheShapeIsReadIsFound(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	ctx := t.Context()
	config, err := pgx.ParseConfig(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	// One mode of execution that sends nothing but the queries themselves.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	trace := &between{at: -1}
	config.Tracer = trace
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) }) // The server goes with the test.
	c := &Capture{cfg: Config{Publication: "p"}}
	srv, err := checkServer(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	db.Exec("CREATE PUBLICATION p FOR ALL TABLES")
	changes := map[string]string{
		"type": "ALTER TABLE %s ALTER COLUMN v TYPE int USING v::int",
		"key":  "ALTER TABLE %s DROP CONSTRAINT %[1]s_pkey, ADD PRIMARY KEY (k)",
		"name": "ALTER TABLE %s RENAME COLUMN v TO w",
	}
	for name, change := range changes {
		for at, over := 0, false; !over; at++ {
			table := fmt.Sprintf("%s%d", name, at)
			db.Exec(fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, k text NOT NULL, v boolean); INSERT INTO %[1]s VALUES (1, '1', true)", table))
			infos, err := readTables(ctx, conn, []Table{{Schema: "public", Name: table}})
			if err != nil {
				t.Fatal(err)
			}
			id, why := &identity{}, ""
			over = true
			for look := range 3 {
				if look == 1 {
					*trace = between{at: at, do: func() { over = false; db.Exec(fmt.Sprintf(change, table)) }}
				}
				f, err := c.compareShapes(ctx, conn, srv.version, infos, id)
				if err != nil {
					t.Fatal(err)
				}
				for _, again := range f.again {
					why = again.why
				}
				id.setShapes(f.shapes)
				if look == 1 && over {
					break
				}
			}
			if !over && why == "" || over && why != "" {
				t.Errorf("change of the %s before query %d: rows are copied again because %q", name, at, why)
			}
			if over && at < 3 {
				t.Fatalf("only %d queries were seen", at)
			}
		}
	}
}
