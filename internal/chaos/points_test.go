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

// TestAKillPointIsNotForgottenBeforeTheProcessHasEnded although it is disarmed in between:
// its end would count as one that nobody asked for.
func TestAKillPointIsNotForgottenBeforeTheProcessHasEnded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		verb string
		left string
	}{{"kill", "capture.stored"}, {"stop", ""}} {
		r := &run{t: t, dir: t.TempDir(), counts: map[string]map[string]int{}}
		s := &stage{r: r, name: "capture"}
		s.arm("capture.stored", 0, test.verb)
		if err := os.Rename(s.killFile(), s.killFile()+".hit"); err != nil { // As the process does.
			t.Fatal(err)
		}
		s.disarm()
		if left, _ := s.hit(); left != test.left {
			t.Errorf("%s: after disarming there is %q, not %q", test.verb, left, test.left)
		}
	}
}
