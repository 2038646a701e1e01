package starrocks_test

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

const password = "s3cr'et:pass"

// setup starts a stand-in with an empty database and a sink for it. change may adapt
// the configuration.
func setup(t testing.TB, options starrockstest.Options, change func(*starrocks.Config)) (*starrocks.Sink, *starrockstest.Server) {
	t.Helper()
	options.Password = password
	server := starrockstest.Start(t, options)
	exec(t, server, "CREATE DATABASE shop")
	return connect(t, server, change), server
}

func connect(t testing.TB, server *starrockstest.Server, change func(*starrocks.Config)) *starrocks.Sink {
	t.Helper()
	config := starrocks.Config{
		URL: "http://" + server.FEHTTP(), MySQLAddr: server.MySQL(), Database: "shop", User: "root", Password: password,
		CreateTables: true, LoadTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&config)
	}
	sink, err := starrocks.New(config)
	if err != nil {
		t.Fatal(err)
	}
	starrocks.Impatient(sink)
	t.Cleanup(sink.Close)
	return sink
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), password) {
		w.t.Errorf("the log shows the password")
	}
	return len(p), nil
}

func exec(t testing.TB, server *starrockstest.Server, statement string) {
	t.Helper()
	if err := server.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// reader reads the stand-in for the suite.
type reader struct{ server *starrockstest.Server }

func (r reader) Rows(t *testing.T, schema *cdc.Schema) [][]string {
	t.Helper()
	data, err := r.server.Rows("shop", starrocks.DefaultTableName(schema))
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, name := range data.Columns {
		at[name] = i
	}
	var rows [][]string
	for _, cells := range data.Rows {
		if cells[at["dbmazz_is_deleted"]].Text == "1" || cells[at["dbmazz_is_deleted"]].Text == "true" {
			continue
		}
		row := make([]string, len(schema.Columns))
		for i := range schema.Columns {
			cell := cells[at[schema.Columns[i].Name]]
			row[i] = cell.Text
			if cell.Null {
				row[i] = sinktest.Null
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// Changes reads an append table of the stand-in.
func (r reader) Changes(t *testing.T, schema *cdc.Schema) []sinktest.Change {
	t.Helper()
	data, err := r.server.Rows("shop", starrocks.DefaultTableName(schema))
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for i, name := range data.Columns {
		at[name] = i
	}
	var changes []sinktest.Change
	for _, cells := range data.Rows {
		number := func(name string) uint64 {
			n, err := strconv.ParseUint(cells[at[name]].Text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		c := sinktest.Change{
			Op:       apply.Op(number("dbmazz_op_type")),
			Position: cdc.Position{Commit: cdc.LSN(number("dbmazz_cdc_version")), Ordinal: number("dbmazz_cdc_ordinal")},
		}
		if deleted := cells[at["dbmazz_is_deleted"]].Text == "1"; deleted != (c.Op == apply.OpDelete) {
			t.Errorf("op %d is marked as deleted: %t", c.Op, deleted)
		}
		for i := range schema.Columns {
			cell := cells[at[schema.Columns[i].Name]]
			if cell.Null {
				cell.Text = sinktest.Null
			}
			c.Values = append(c.Values, cell.Text)
		}
		changes = append(changes, c)
	}
	return changes
}

func TestAppendTablesKeepTheirContract(t *testing.T) {
	t.Parallel()
	for version, mode := range map[string]starrocks.DeleteMode{"3.1.5": starrocks.DeleteSoft, "3.3.8": starrocks.DeleteHard} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			sinktest.RunAppend(t, func(t *testing.T) (apply.Sink, sinktest.AppendReader) {
				// A label is forgotten once another one is there.
				sink, server := setup(t, starrockstest.Options{Version: version, LabelKeepMaxNum: 1, LabelCleanInterval: -1}, func(c *starrocks.Config) { c.DeleteMode = mode })
				return sink, reader{server}
			})
		})
	}
}

func TestGuardedBatchesKeepTheirContract(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{1, 1000} {
		for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
			t.Run(fmt.Sprintf("%s/%d", mode, keep), func(t *testing.T) {
				t.Parallel()
				sinktest.RunGuarded(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
					sink, server := setup(t, starrockstest.Options{LabelKeepMaxNum: keep, LabelCleanInterval: -1}, func(c *starrocks.Config) { c.DeleteMode = mode })
					return sink, reader{server}
				})
			})
		}
	}
}

func TestOptionalRowsKeepTheirContract(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{1, 1000} {
		for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
			t.Run(fmt.Sprintf("%s/%d", mode, keep), func(t *testing.T) {
				t.Parallel()
				sinktest.RunOptional(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
					sink, server := setup(t, starrockstest.Options{LabelKeepMaxNum: keep, LabelCleanInterval: -1}, func(c *starrocks.Config) { c.DeleteMode = mode })
					return sink, reader{server}
				})
			})
		}
	}
}

func TestSinkKeepsItsContractWithSoftDeletes(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
		sink, server := setup(t, starrockstest.Options{}, nil)
		return sink, reader{server}
	})
}

func TestSinkKeepsItsContractWithHardDeletes(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
		sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = starrocks.DeleteHard })
		return sink, reader{server}
	})
}

func TestSinkKeepsItsContractThroughABackEndWithSlowSchemaChangesAndSmallLoads(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
		options := starrockstest.Options{DisableFastSchemaEvolution: true, Version: "3.1.5", LabelKeepMaxNum: 1, LabelCleanInterval: -1}
		var server *starrockstest.Server
		sink, server := setup(t, options, func(c *starrocks.Config) { c.MaxBodyBytes = 300 })
		_ = sink
		return connect(t, server, func(c *starrocks.Config) { c.URL, c.MaxBodyBytes = "http://"+server.BEHTTP(), 300 }), reader{server}
	})
}
