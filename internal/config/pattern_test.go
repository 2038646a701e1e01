package config_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/internal/config"
)

func TestPatternsMatchWhatTheySay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, yes, no string }{
		{"public.*", "public.a public.A public.ä_1", "shop.a Public.a"},
		{"*.*", "public.a Shop.a", ""},
		{"public.audit_*", "public.audit_ public.audit_x", "public.audit public.Audit_x public.xaudit_x"},
		{"public.*_archive", "public._archive public.a_archive_archive", "public.archive public.a_archive_b"},
		{"public.a*b*c", "public.abc public.aXbYc public.abbcc", "public.ab public.acb"},
		{"public.o?d", "public.old public.oäd", "public.od public.oldd"},
		{"shop_?.t", "shop_1.t", "shop_.t shop_12.t shop_1.tt"},
		{`"Shop".*`, "Shop.a Shop.B", "shop.a"},
		{`*."a*b"`, "x.a*b", "x.aXb"},
		{"public.?*", "public.a public.ab", ""},
	} {
		s, err := config.ParseSelection(c.pattern)
		if err != nil || len(s.Patterns) != 1 || len(s.Tables) != 0 {
			t.Fatalf("%s: %+v, %v", c.pattern, s, err)
		}
		if again, err := config.ParseSelection(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("%s prints as %s, which is read as %v: %v", c.pattern, s, again, err)
		}
		check := func(names string, want bool) {
			for name := range strings.FieldsSeq(names) {
				schema, table, _ := strings.Cut(name, ".")
				if s.Patterns[0].Match(schema, table) != want {
					t.Errorf("%s matches %s: want %t", c.pattern, name, want)
				}
			}
		}
		check(c.yes, true)
		check(c.no, false)
	}
}

func TestSelectionIsReadInFull(t *testing.T) {
	t.Parallel()
	s, err := config.ParseSelection(`orders, shop.*,! shop.audit_*`, `"My"."a*", !"shop"."X"`)
	if err != nil {
		t.Fatal(err)
	}
	const want = `public.orders,"My"."a*",shop.*,!shop.audit_*,!shop."X"`
	if s.String() != want {
		t.Errorf("got %s, want %s", s, want)
	}
	if again, err := config.ParseSelection(want); err != nil || again.String() != want {
		t.Errorf("it is read again as %s: %v", again, err)
	}
}

func TestSelectionThatCanBeMeantInTwoWaysIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"audit_*":                         {`"audit_*"`, "public.audit_*", "*.audit_*", "needs its schema"},
		"*":                               {"public.*", "*.*"},
		"orders,!items":                   {"!public.items has nothing to leave out"},
		"!shop.*":                         {"!shop.* has nothing to leave out"},
		"public.*,shop.a,!shop.*":         {"shop.a is listed, and left out by !shop.*"},
		"shop.*,!shop.*":                  {"shop.* is listed, and left out by !shop.*"},
		"shop.*,shop.*":                   {"shop.* is listed twice"},
		"public.*,!public.a,!a":           {"!a is listed twice"},
		"public.Audit*":                   {"must be lower case"},
		`public."Audit"*`:                 {"after the closing double quote"},
		"public.a-*":                      {"letters, digits"},
		"a.b.*":                           {"more than two parts"},
		"!":                               {"a name is empty"},
		"!!a":                             {"double quotes"},
		"audit_*,b.,public.*,!x.y,Z,!u.*": {`"audit_*"`, "a name is empty", `write "Z"`}, // All at once.
		"public.*,a,!a,!x.*,x.b":          {"public.a is listed, and left out by !public.a", "x.b is listed, and left out by !x.*"},
	} {
		_, err := config.ParseSelection(text)
		if err == nil {
			t.Errorf("%s is taken", text)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: no %q in: %v", text, w, err)
			}
		}
	}
}

func TestNameOfTargetTablesMustTellTablesApart(t *testing.T) {
	t.Parallel()
	load := func(value string) (config.Config, error) {
		c, _, err := config.Load([]string{"SINK_TABLE_NAME=" + value, "SOURCE_URL=postgres://u:p@h/d", "TABLES=a", "SINK_URL=h", "SINK_DATABASE=d"}, config.Capture|config.Apply)
		return c, err
	}
	for _, good := range []string{"{table}", "{schema}_{table}", "pg.{table}"} {
		if c, err := load(good); err != nil || c.SinkTableName != good {
			t.Errorf("%s: %q, %v", good, c.SinkTableName, err)
		}
	}
	for bad, want := range map[string]string{"one": "many tables one name", "{schema}": "many tables one name", "{table}{db}": "in braces", "{table}/x": "slashes", "a {table}": "spaces"} {
		if _, err := load(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
