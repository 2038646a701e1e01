package capture

import (
	"fmt"
	"testing"
)

func TestSnapshotTellsWhichTransactionsItSees(t *testing.T) {
	t.Parallel()
	const epoch = 3 << 32
	v, err := parseVisibility(fmt.Sprintf("%d:%d:%d,%d", uint64(epoch-5), uint64(epoch+5), uint64(epoch-5), uint64(epoch+2)))
	if err != nil {
		t.Fatal(err)
	}
	below := func(n uint32) uint32 { return -n }
	for xid, want := range map[uint32]bool{
		below(6): true, below(5): false, below(4): true, 0: true, 1: true, 2: false, 3: true, 4: true, 5: false, 6: false,
		1<<31 + 6: true, 1 << 31: false,
	} {
		if got := v.sees(xid); got != want {
			t.Errorf("%d: %t", int32(xid), got) //nolint:gosec // To show it.
		}
	}
	for _, text := range []string{"", "1:2", "1:2:x", "a:2:", "1:2:3:4"} {
		if _, err := parseVisibility(text); err == nil {
			t.Errorf("%q is a snapshot", text)
		}
	}
}
