package config_test

import (
	"flag"
	"os"
	"regexp"
	"testing"

	"github.com/dbmazz/dbmazz/internal/config"
)

var updateReadme = flag.Bool("update", false, "write the table of variables into the README")

const readme = "../../README.md"

func TestReadmeHasTheTableOfVariables(t *testing.T) {
	data, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	if *updateReadme {
		table := regexp.MustCompile(`(?s)<!-- config:start -->.*<!-- config:end -->`)
		data = table.ReplaceAllLiteral(data, []byte(config.Markdown()))
		if err := os.WriteFile(readme, data, 0o644); err != nil { //nolint:gosec // A README.
			t.Fatal(err)
		}
	}
	if err := config.CheckReadme(string(data)); err != nil {
		t.Errorf("%v; run go test ./internal/config -run Readme -update", err)
	}
}
