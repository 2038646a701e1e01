package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func TestTheCheckpointCountsOnlyForTheDatabaseThatItIsAbout(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	soft := target{Type: "starrocks", Database: "shop", DeleteMode: "soft"}
	if err := checkTarget(ctx, b, soft); err != nil {
		t.Errorf("before apply has ever run: %v", err)
	}
	for range 2 {
		if err := claimTarget(ctx, b, soft, log); err != nil {
			t.Fatal(err)
		}
	}
	named := soft
	named.TableName = "{schema}_{table}"
	if err := claimTarget(ctx, b, named, log); err == nil || !strings.Contains(err.Error(), `SINK_TABLE_NAME="", it is "{schema}_{table}"`) {
		t.Errorf("other names: %v", err)
	}
	if err := checkTarget(ctx, b, named); err == nil || !strings.Contains(err.Error(), "SINK_TABLE_NAME is") {
		t.Errorf("a tool with other names: %v", err)
	}
	other, hard := soft, soft
	other.Database, hard.DeleteMode = "copy", "hard"
	if err := claimTarget(ctx, b, other, log); err == nil || !strings.Contains(err.Error(), `writes to database "shop"`) {
		t.Errorf("another database: %v", err)
	}
	if err := checkTarget(ctx, b, other); err == nil || !strings.Contains(err.Error(), "--sink-database") {
		t.Errorf("a tool with another database: %v", err)
	}
	if err := checkTarget(ctx, b, hard); err == nil || !strings.Contains(err.Error(), "SINK_DELETE_MODE is hard here and soft") {
		t.Errorf("a tool with another way of deleting: %v", err)
	}
	if err := claimTarget(ctx, b, hard, log); err != nil {
		t.Errorf("another way of deleting, on purpose: %v", err)
	}
	if err := checkTarget(ctx, b, hard); err != nil {
		t.Errorf("a tool as the pipeline is now: %v", err)
	}
}

func TestAHoldEndsWithItsOwnerOrItsTimeOnly(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var d desired
	d.hold("replay", now.Add(time.Minute), now)
	d.hold("dlq", now.Add(time.Second), now)
	d.hold("dlq", time.Time{}, now)
	if until := d.held(now); !until.Equal(now.Add(time.Minute)) {
		t.Errorf("held until %s", until)
	}
	if until := d.held(now.Add(2 * time.Minute)); !until.IsZero() {
		t.Errorf("held after its time, until %s", until)
	}
	d.hold("replay", time.Time{}, now)
	if until := d.held(now); !until.IsZero() {
		t.Errorf("held after its end, until %s", until)
	}
}

func TestAContextIsOverWhenItsCheckSaysSo(t *testing.T) {
	t.Parallel()
	over := false
	ctx := checkedContext{t.Context(), func() error {
		if over {
			return context.DeadlineExceeded
		}
		return nil
	}}
	if ctx.Err() != nil {
		t.Error("over at the start")
	}
	if over = true; ctx.Err() == nil {
		t.Error("not over")
	}
}
