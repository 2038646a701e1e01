package bus_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func testStateIsComparedAndSet(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	if _, _, err := b.Get(ctx, "apply"); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("missing key: %v", err)
	}
	r1, err := b.Update(ctx, "apply", []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(ctx, "apply", []byte("other"), 0); !errors.Is(err, bus.ErrConflict) {
		t.Fatalf("create of an existing key: %v", err)
	}
	r2, err := b.Update(ctx, "apply", []byte("two"), r1)
	if err != nil || r2 <= r1 {
		t.Fatalf("update: revision %d after %d, %v", r2, r1, err)
	}
	if _, err := b.Update(ctx, "apply", []byte("three"), r1); !errors.Is(err, bus.ErrConflict) {
		t.Fatalf("update at an old revision: %v", err)
	}
	r3, err := b.Put(ctx, "apply", []byte("four"))
	if err != nil {
		t.Fatal(err)
	}
	value, revision, err := b.Get(ctx, "apply")
	if err != nil || string(value) != "four" || revision != r3 {
		t.Fatalf("got %q at %d, %v", value, revision, err)
	}
}

func testWatchBeginsWithTheCurrentValue(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	missing, err := b.Watch(ctx, "missing")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-missing; e.Revision != 0 {
		t.Fatalf("missing key: %+v", e)
	}
	if _, err := b.Put(ctx, "key", []byte("before")); err != nil {
		t.Fatal(err)
	}
	w, err := b.Watch(ctx, "key")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w; string(e.Value) != "before" {
		t.Fatalf("first entry: %+v", e)
	}
	if _, err := b.Put(ctx, "key", []byte("after")); err != nil {
		t.Fatal(err)
	}
	if e := <-w; string(e.Value) != "after" {
		t.Fatalf("second entry: %+v", e)
	}
}

func testSchemaIsVerified(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	s := bustest.Schema()
	for range 2 {
		if err := b.PutSchema(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Schema(ctx, s.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Columns, got.Columns); diff != "" {
		t.Error(diff)
	}
	other := bustest.Schema()
	other.Table = "other"
	if err := other.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Schema(ctx, other.Fingerprint()); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("missing schema: %v", err)
	}
	data, _, err := b.Get(ctx, "schema."+s.Fingerprint().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(ctx, "schema."+other.Fingerprint().String(), data); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Schema(ctx, other.Fingerprint()); err == nil {
		t.Error("a schema under the wrong fingerprint was accepted")
	}
}
