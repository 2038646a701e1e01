package config_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dbmazz/dbmazz/internal/config"
)

// FuzzTables states that a list that is accepted names the same tables when it is written
// again, and that every table that PostgreSQL can have is named by what is written of it.
func FuzzTables(f *testing.F) {
	f.Add("orders, shop.items", "public", "a")
	f.Add(`"My""Shop"."Ord,ers",t`, `x"."y`, `,".`)
	f.Add(`"a`, "Ünïcode", " ")
	f.Fuzz(func(t *testing.T, list, schema, name string) {
		if tables, err := config.ParseTables(list); err == nil {
			var again []string
			for _, table := range tables {
				again = append(again, table.String())
			}
			same, err := config.ParseTables(strings.Join(again, ","))
			if err != nil || len(same) != len(tables) {
				t.Fatalf("%q is %q, which is %v: %v", list, again, same, err)
			}
			for i := range same {
				if same[i] != tables[i] {
					t.Fatalf("%q is %q, which is %v", list, again, same)
				}
			}
		} else if strings.ContainsAny(err.Error(), "\n\r") {
			t.Fatalf("%q: the error has more than one line: %v", list, err)
		}
		for _, text := range []string{schema, name} {
			if text == "" || len(text) > 63 || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
				return
			}
		}
		want := config.Table{Schema: schema, Name: name}
		got, err := config.ParseTables(want.String() + ",other")
		if err != nil || len(got) != 2 || got[0] != want {
			if want != (config.Table{Schema: "public", Name: "other"}) {
				t.Fatalf("%#v is written as %s, which is %#v: %v", want, want, got, err)
			}
		}
	})
}

// FuzzDotEnv states that what a line of .env assigns in double quotes arrives, and that
// no error shows a value.
func FuzzDotEnv(f *testing.F) {
	f.Add("A", "b c", "# x")
	f.Add("B_1", `"\$'`, `C="`)
	f.Fuzz(func(t *testing.T, name, value, line string) {
		secret := hidden + value
		if strings.ContainsAny(secret, "\n\r\x00") || !utf8.ValidString(secret) {
			return
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\t", `\t`).Replace(secret)
		environ, err := config.ParseDotEnv("X=\"" + quoted + "\" # comment\n")
		if err != nil || len(environ) != 1 || environ[0] != "X="+secret {
			t.Fatalf("%q: %q, %v", quoted, environ, err)
		}
		if _, err := config.ParseDotEnv(line + "=" + secret + "\n" + name); err != nil && strings.Contains(err.Error(), hidden) && !strings.Contains(line+name, hidden) {
			t.Fatalf("the error shows a value: %v", err)
		}
	})
}
