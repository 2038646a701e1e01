package chaos_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// plantedEnv asks for the planted bugs: "all", or a part of a name.
const plantedEnv = "DBMAZZ_CHAOS_PLANTED"

// plantedSeeds is within how many seeds each must be caught, batchSeeds how many are run
// at a time.
const plantedSeeds, batchSeeds = 20, 4

// planted is a bug that the suite must catch: an edit of one file.
type planted struct{ name, file, before, after string }

var plantedBugs = []planted{
	{
		"the slot is confirmed as soon as a transaction has arrived", "capture/confirm.go",
		"return max(c.sent, c.applied, c.saved) }", "return max(c.sent, c.applied, c.saved, c.seen.pending) }",
	},
	{
		"the checkpoint is moved one batch early", "apply/load.go",
		"\tif len(b.changes) > 0 {\n\t\tif err := l.apply(ctx, b)",
		"\tif err := l.ledger.finish(ctx, b.checkpoint); err != nil {\n\t\treturn err\n\t}\n\tif len(b.changes) > 0 {\n\t\tif err := l.apply(ctx, b)",
	},
	{
		"rows without a key are sent again without a look at the table", "apply/starrocks/deliver.go",
		"missing, err := r.missing(ctx, r)", "missing, err := r.rows, error(nil)\n\tif state.committed() {\n\t\tmissing = 0\n\t}",
	},
	{
		"what the stream holds already is published again", "capture/decode.go",
		"if s.out.Next().After(s.tail) && s.began >= s.tailEnd {", "if s.out.Next().After(s.tail) || s.began > 0 {",
	},
	{
		"the state of a label is not asked for", "apply/starrocks/deliver.go",
		"state, err := s.load.state(ctx, label)\n\t\tif err == nil && state.settled()", "state, err := stateVisible, error(nil)\n\t\tif err == nil && state.settled()",
	},
	{
		"a filtered row is ignored", "apply/starrocks/outcome.go",
		"if a.NumberLoadedRows != r.rows || a.NumberFilteredRows != 0 || a.NumberUnselectedRows != 0 {", "if r.rows < 0 {",
	},
	{
		"a label that is committed stands for all rows of its load", "apply/starrocks/deliver.go",
		"if !state.committed() && !r.once {\n\t\treturn false, nil", "if !r.once {\n\t\treturn state.committed(), nil",
	},
	{
		"two loads of a table change places", "apply/load.go",
		"err := l.table(ctx, t, p)",
		"half, first, second := len(t.changes)/2, p, p\n\t\t\tfirst.To.Ordinal += 1 << 40\n\t\t\tsecond.To.Ordinal += 1 << 41\n" +
			"\t\t\terr := l.table(ctx, &tableChanges{schema: t.schema, changes: t.changes[half:]}, second)\n" +
			"\t\t\tif err == nil && half > 0 {\n\t\t\t\terr = l.table(ctx, &tableChanges{schema: t.schema, changes: t.changes[:half]}, first)\n\t\t\t}",
	},
	{
		"a row that is copied ignores the changes since it was read", "capture/snapshot_desk.go",
		"if isKey != nil {\n\t\t\tkey = keyBytes", "if isKey != nil && false {\n\t\t\tkey = keyBytes",
	},
	{
		"a copy does not wait for commits that its snapshot does not show", "capture/snapshot_suspect.go",
		"hidden := d.passed.hidden(seen, mark)", "hidden := d.passed.hidden(seen, mark) && mark < 0",
	},
	{
		"a plan is not stored before it is carried out", "apply/state.go",
		"killpoint.Reached(\"apply.planning\")\n\tif err := l.save(ctx); err != nil {\n\t\treturn err\n\t}", "killpoint.Reached(\"apply.planning\")",
	},
}

// TestPlantedBugsFitTheCode: a bug that is planted nowhere is never caught.
func TestPlantedBugsFitTheCode(t *testing.T) {
	t.Parallel()
	for _, bug := range plantedBugs {
		if _, err := bug.plant(); err != nil {
			t.Error(err)
		}
	}
}

// plant returns the text of the file with the bug in it.
func (b *planted) plant() (string, error) {
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(b.file)))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), b.before); n != 1 {
		return "", fmt.Errorf("plant %q: %s has the text to change %d times, want once", b.name, b.file, n)
	}
	return strings.Replace(string(text), b.before, b.after, 1), nil
}

// buggy builds the binary with the bug; the tree stays as it is.
func (b *planted) buggy(dir string) (string, error) {
	text, err := b.plant()
	if err != nil {
		return "", err
	}
	file, err := filepath.Abs(filepath.Join("..", "..", filepath.FromSlash(b.file)))
	if err != nil {
		return "", err
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	if err := makeFolder(); err != nil {
		return "", err
	}
	return build("planted", "-overlay", overlay)
}

// outcomeOfSeed finds a run that has failed, but for what is wrong with the suite.
var outcomeOfSeed = regexp.MustCompile(`(?m)^chaos \d+/\d+: seed (\d+), .* PROBLEMS, the first: ([^t].*)`)

// TestEachPlantedBugIsCaught builds the binary with one bug at a time and runs seed after
// seed until one fails.
func TestEachPlantedBugIsCaught(t *testing.T) {
	wanted := os.Getenv(plantedEnv)
	if wanted == "" {
		t.Skipf("%s is not set", plantedEnv) // skip: it takes many minutes; make chaos-planted runs it.
	}
	for _, bug := range plantedBugs {
		if wanted != "all" && !strings.Contains(bug.name, wanted) {
			continue
		}
		t.Run(bug.name, func(t *testing.T) {
			path, err := bug.buggy(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for first := 1; first <= plantedSeeds; first += batchSeeds {
				command := exec.Command(os.Args[0], "-test.run=^TestRandomHistories", "-test.timeout=30m", "-test.parallel="+fmt.Sprint(parallelRuns)) //nolint:gosec // This program.
				command.Env = append(os.Environ(), binaryEnv+"="+path, fmt.Sprintf("%s=%d", seedEnv, first), fmt.Sprintf("%s=%d", countEnv, batchSeeds), plantedEnv+"=", reportEnv+"=")
				out, err := command.CombinedOutput()
				found := outcomeOfSeed.FindSubmatch(out)
				if err != nil { // It may not be the bug that was caught.
					t.Logf("run the suite: %v\n%s", err, lastLines(string(out), 80))
				}
				if found != nil {
					fmt.Fprintf(os.Stderr, "planted: %s: caught by seed %s: %s\n", bug.name, found[1], found[2])
					return
				}
			}
			t.Errorf("not caught by seeds 1 to %d", plantedSeeds)
		})
	}
}
