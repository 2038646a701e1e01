package bus_test

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/roster"
)

var _ roster.Store = bus.Leases{}

// testLeasesTellDeletedFromNeverThere: who finds a deleted key must wait, because its
// owner may not know yet.
func testLeasesTellDeletedFromNeverThere(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	store := b.Leases()
	get := func() (string, uint64) {
		t.Helper()
		value, revision, err := store.Get(ctx, "key")
		if err != nil {
			t.Fatal(err)
		}
		return string(value), revision
	}
	if value, revision := get(); value != "" || revision != 0 {
		t.Errorf("before the first write: %q at %d", value, revision)
	}
	changed, err := store.Watch(ctx, "key")
	if err != nil {
		t.Fatal(err)
	}
	<-changed
	first, err := store.Update(ctx, "key", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	<-changed
	if value, revision := get(); value != "1" || revision != first {
		t.Errorf("after a write: %q at %d, want %d", value, revision, first)
	}
	for _, revision := range []uint64{0, first - 1, first + 1} {
		if _, err := store.Update(ctx, "key", []byte("x"), revision); err == nil {
			t.Errorf("revision %d was accepted instead of %d", revision, first)
		}
	}
	if err := bus.DeleteKey(ctx, b, "key"); err != nil {
		t.Fatal(err)
	}
	<-changed
	value, deleted := get()
	if value != "" || deleted <= first {
		t.Errorf("after a deletion: %q at %d", value, deleted)
	}
	if _, err := store.Update(ctx, "key", []byte("x"), 0); err == nil {
		t.Error("a deleted key was written as if it had never been there")
	}
	if _, err := store.Update(ctx, "key", []byte("2"), deleted); err != nil {
		t.Error(err)
	}
}

// testLeadershipMovesOverTheBus releases, takes over, and finds out.
func testLeadershipMovesOverTheBus(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	lease := func(name string) *roster.Lease {
		return roster.New(roster.Config{Store: b.Leases(), Key: "leader.test", Member: name, TTL: 4 * time.Second, Logger: bustest.Logger(t)})
	}
	one, two := lease("one"), lease("two")
	term, err := one.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	terms := make(chan *roster.Term, 1)
	go func() {
		term, err := two.Acquire(ctx)
		if err != nil {
			t.Error(err)
		}
		terms <- term
	}()
	<-time.After(5 * time.Second) // longer than a term
	if err := term.Check(); err != nil {
		t.Fatal(err)
	}
	if h := two.Holder(); h.Member != "one" || h.Self || !two.Waiting() {
		t.Errorf("the standby sees %+v", h)
	}
	if err := term.Release(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	term = <-terms
	if took := time.Since(began); took > 3*time.Second { // Without a release it takes a term.
		t.Errorf("taking over took %s", took)
	}
	if err := bus.DeleteKey(ctx, b, "leader.test"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-term.Done():
	case <-time.After(4 * time.Second):
		t.Error("the leader does not notice that its key is gone")
	}
	if err := term.Release(ctx); err != nil {
		t.Error(err)
	}
}
