package deployments_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/config"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestDeploymentsSetOnlyVariablesThatDbmazzKnows(t *testing.T) {
	t.Parallel()
	set := regexp.MustCompile(`\b((?:SOURCE|SINK|FLUSH|GRPC|METRICS|BUS|LOG|SHUTDOWN|SNAPSHOT|TABLES)(?:_[A-Z0-9]+)*)(?::|=|, value)`)
	known := strings.Fields(config.Help())
	for _, path := range []string{
		"../docker-compose.yml", "Dockerfile", "systemd/dbmazz.service", "systemd/dbmazz.env.example",
		"kubernetes/config.yaml", "kubernetes/statefulset.yaml",
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		matches := set.FindAllSubmatch(text, -1)
		if len(matches) == 0 {
			t.Errorf("%s sets nothing: the test no longer understands it", path)
		}
		for _, match := range matches {
			if name := string(match[1]); !slices.Contains(known, name) {
				t.Errorf("%s sets %s, which dbmazz does not know", path, name)
			}
		}
	}
}

func TestComposeSourceLetsItsUserReplicateTheTables(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("compose/source.sql")
	if err != nil {
		t.Fatal(err)
	}
	// The script makes a role, which a database shared with other tests would keep.
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	db.Exec(string(script))

	config, err := pgx.ParseConfig(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = "dbmazz", "for-trying-out"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"CREATE PUBLICATION dbmazz_pub FOR TABLE customers, orders, order_items",
		"SELECT pg_create_logical_replication_slot('dbmazz_slot', 'pgoutput')",
		"INSERT INTO customers (name, email) VALUES ('Ada', 'ada@example.com')",
		"INSERT INTO orders (customer_id, total) VALUES (1, 12.50)",
		"INSERT INTO order_items VALUES (1, 1, 'tea', 2, 6.25)",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
