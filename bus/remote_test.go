package bus_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// drainedFromAfar floods the owner's stream until its publisher holds, and then lets
// the remote process consume, keep its checkpoint and purge.
func drainedFromAfar(t *testing.T, owner, remote *bus.Bus, holding bus.State, total uint64) {
	t.Helper()
	ctx := bounded(t)
	p, err := owner.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	result := flood(ctx, p, bustest.NewSource(owner.Epoch(), cdc.Tail{}), total, 64<<10)
	waitFor(ctx, t, "the publisher to hold", func() bool { return p.State() == holding })
	info, err := remote.Info(ctx)
	if err != nil || info.DiskFreeBytes != -1 || info.Messages == 0 || info.MaxBytes == 0 {
		t.Errorf("info from afar is %+v, %v", info, err)
	}

	janitor, stop := context.WithCancel(ctx)
	var acked atomic.Uint64
	ended := make(chan error, 1)
	go func() { ended <- remote.RunJanitor(janitor, acked.Load) }()
	c, err := remote.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: remote.Epoch()}
	var revision uint64
	for check.Count < total {
		m, err := check.Read(ctx, c, check.Count+1)
		if err != nil {
			t.Fatal(err)
		}
		if revision, err = remote.Update(ctx, "apply", []byte(m.StoredAt.String()), revision); err != nil {
			t.Fatal(err)
		}
		acked.Store(m.Sequence)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || uint64(check.Frames) != total { //nolint:gosec // A count.
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
