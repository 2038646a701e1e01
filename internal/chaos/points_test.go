package chaos_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var reached = regexp.MustCompile(`killpoint\.Reached\("([a-z.]+)"\)`)

// TestKillPointsOfTheCodeAreThoseOfTheSuite: a point that the suite does not know is never
// struck, one that the code does not have strikes nobody.
func TestKillPointsOfTheCodeAreThoseOfTheSuite(t *testing.T) {
	t.Parallel()
	var found []string
	for _, dir := range []string{"apply", "apply/starrocks", "bus", "capture"} {
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range reached.FindAllSubmatch(text, -1) {
				found = append(found, string(match[1]))
			}
		}
	}
	known := slices.Concat(capturePoints, copyPoints, applyPoints, startPoints)
	slices.Sort(found)
	slices.Sort(known)
	if diff := cmp.Diff(slices.Compact(known), found); diff != "" {
		t.Errorf("the suite (-) and the code (+) have different points:\n%s", diff)
	}
}
