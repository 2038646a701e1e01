package apply_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// TestIndexOfLettersFindsWhatALookAtAllFinds compares the two after letters have come and
// gone.
func TestIndexOfLettersFindsWhatALookAtAllFinds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var index apply.LetterIndex
		var all []apply.LetterRef
		kinds := []apply.LetterKind{apply.LetterRefused, apply.LetterFollows, apply.LetterPassed}
		keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 2, rapid.ID[string])
		bytesOf := func(texts []string) (out [][]byte) {
			for _, text := range texts {
				out = append(out, []byte(text))
			}
			return out
		}
		for n := range rapid.IntRange(1, 25).Draw(t, "steps") {
			if len(all) > 0 && rapid.IntRange(0, 4).Draw(t, "remove") == 0 {
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				index.Remove(all[i].ID)
				all = append(all[:i:i], all[i+1:]...)
				continue
			}
			// Not in the order in which they are stored.
			lsn := cdc.LSN(rapid.IntRange(1, 20).Draw(t, "lsn")) //nolint:gosec // Small.
			ref := apply.LetterRef{
				ID: fmt.Sprintf("%016X-%010d-x", uint64(lsn), n), Kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
				Namespace: "public", Table: rapid.SampledFrom([]string{"t", "u"}).Draw(t, "table"),
				Keys: bytesOf(keys.Draw(t, "keys")), Needs: bytesOf(keys.Draw(t, "needs")), Position: cdc.Position{Commit: lsn, Ordinal: uint64(n)}, //nolint:gosec // Small.
			}
			all = append(all, ref)
			index.Add(ref)
			index.Add(ref)
		}
		for i := range all {
			if diff := cmp.Diff(apply.Related(all, all[i].ID), index.Related(all[i].ID)); diff != "" {
				t.Fatalf("letter %s of %+v: %s", all[i].ID, all, diff)
			}
		}
		if got := index.Related("no such letter"); len(got.Retry)+len(got.Delete) > 0 {
			t.Fatal(got)
		}
	})
}
