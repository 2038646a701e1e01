package starrocks_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks"
)

var update = flag.Bool("update", false, "write docs/types.md from the table of types")

func TestTypesDocumentIsCurrent(t *testing.T) {
	t.Parallel()
	const path, begin, end = "../../docs/types.md", "<!-- types: generated, do not edit -->\n", "<!-- types: end -->\n"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks of the generated table", path)
	}
	var b strings.Builder
	b.WriteString("| PostgreSQL | column | key column | existing columns that are written to | remarks |\n|---|---|---|---|---|\n")
	for _, row := range starrocks.TypeRows() {
		b.WriteString("| " + strings.Join([]string{row.Names, row.Value, row.Key, row.Accepts, row.Note}, " | ") + " |\n")
	}
	want := before + begin + b.String() + end + after
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the table of types says: run go test ./apply/starrocks -run TestTypesDocumentIsCurrent -update", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil { //nolint:gosec // A document.
		t.Fatal(err)
	}
}
