package capture_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// hostileSettings print values in other ways, hide names, read keys that are sent back
// otherwise, and end what takes long.
var hostileSettings = map[string]string{
	"DateStyle": "'German'", "TimeZone": "'Asia/Kolkata'", "IntervalStyle": "'iso_8601'", "extra_float_digits": "-15", "bytea_output": "'escape'",
	"xmlbinary": "'hex'", "xmloption": "'document'", "search_path": "public, s2", "quote_all_identifiers": "on", "client_encoding": "'LATIN1'",
	"standard_conforming_strings": "off", "escape_string_warning": "off", "array_nulls": "off", "transform_null_equals": "on", "backslash_quote": "on",
	"statement_timeout": "30000", "idle_in_transaction_session_timeout": "1",
}

const settingDDL = `CREATE SCHEMA s2; CREATE TABLE s2."Odd" (); CREATE TABLE known ();
CREATE TABLE t (id int, a text[], d date, ts timestamptz, i interval, f float8, b bytea, m money, c regclass, c2 regclass, y regtype, e text, PRIMARY KEY (a, id))`

const settingRows = `SELECT n, ARRAY[NULL, 'a\b', E'''é']::text[], '2024-02-03'::date, '2024-02-03 04:05:06.7+02'::timestamptz, '1 day 2:03'::interval, 0.1::float8 + 0.2,
'\x00ff'::bytea, '1234.5'::numeric::money, 's2."Odd"'::regclass, 'public.known'::regclass, 'timestamptz[]'::regtype, E'€ \\ ''' FROM generate_series(%d, %d) n`

func settingRow(n int) []string {
	return []string{
		fmt.Sprint(n), `{NULL,"a\\b",'é}`, "2024-02-03", "2024-02-03 02:05:06.7+00", "1 day 02:03:00", "0.30000000000000004", `\x00ff`, "$1,234.50",
		`s2."Odd"`, "public.known", "timestamp with time zone[]", `€ \ '`,
	}
}

// setHostile sets a database's and a role's defaults, and where there are login event
// triggers one that sets them again after the connection has asked for others.
func setHostile(t *testing.T, db *pgtest.DB, role string) {
	t.Helper()
	settings := maps.Clone(hostileSettings)
	if db.Server().Major() >= 14 {
		settings["idle_session_timeout"] = "60000"
	}
	if db.Server().Major() >= 17 {
		settings["transaction_timeout"] = "30000"
	}
	var trigger []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := settings[name]
		db.Exec(fmt.Sprintf("ALTER DATABASE %s SET %s = %s; ALTER ROLE %s SET %[2]s = %[3]s; ALTER ROLE %[4]s IN DATABASE %[1]s SET %[2]s = %[3]s", db.Name(), name, value, role))
		if !strings.HasSuffix(name, "_timeout") {
			trigger = append(trigger, fmt.Sprintf("PERFORM set_config('%s', %s, false);", name, quoted(value)))
		}
	}
	if db.Server().Major() >= 17 {
		db.Exec("CREATE FUNCTION unsettle() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN " + strings.Join(trigger, " ") + " END $$;" +
			"CREATE EVENT TRIGGER unsettle ON login EXECUTE FUNCTION unsettle(); ALTER EVENT TRIGGER unsettle ENABLE ALWAYS")
	}
}

func quoted(value string) string {
	if strings.HasPrefix(value, "'") {
		return value
	}
	return "'" + value + "'"
}

// TestValuesHaveTheirCanonicalTextWhateverTheServersDefaultsAre covers changes and
// copied rows.
func TestValuesHaveTheirCanonicalTextWhateverTheServersDefaultsAre(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		role := "hostile_" + db.Name()
		db.Exec(settingDDL)
		db.Exec(fmt.Sprintf("INSERT INTO t "+settingRows, 1, 3))
		db.Exec("CREATE ROLE " + role + " LOGIN SUPERUSER PASSWORD 'x'")
		setHostile(t, db, role)
		r := copying(t, db, "t")
		r.cfg.SourceURL = as(t, db, role, "x")
		// What the URL asks for does not matter either.
		u, err := url.Parse(r.cfg.SourceURL)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set("DateStyle", "SQL, DMY")
		query.Set("options", "-c TimeZone=Asia/Tokyo -c IntervalStyle=sql_standard")
		u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
		r.cfg.SourceURL, r.cfg.SnapshotChunkRows = u.String(), 2
		r.start()
		r.copied()
		db.Exec(fmt.Sprintf("SET search_path = pg_catalog; SET array_nulls = on; SET standard_conforming_strings = on; SET client_encoding = UTF8; INSERT INTO public.t "+settingRows, 4, 4))
		r.drain()
		var got [][]string
		fingerprints := map[cdc.Fingerprint]bool{}
		for _, rec := range r.records() {
			if rec.Kind.IsRow() {
				got = append(got, tupleTexts(rec.New))
				fingerprints[rec.Table.Fingerprint()] = true
			}
		}
		if diff := cmp.Diff([][]string{settingRow(1), settingRow(2), settingRow(3), settingRow(4)}, got); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if len(fingerprints) != 1 {
			t.Errorf("copied and streamed rows have %d schemas, want the same", len(fingerprints))
		}
		r.stop()
	})
}
