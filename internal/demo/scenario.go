package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// killEvery is the share of time that each kill gets.
	killEvery = 6 * time.Second
	// outageAfter is how long the load runs before the sink goes, and again after it is back.
	outageAfter = 10 * time.Second
)

// scenario does what was asked for while the load runs.
func (d *demo) scenario(ctx context.Context, written <-chan struct{}) error {
	switch {
	case d.kills > 0:
		return d.killing(ctx, written)
	case d.sinkDown > 0:
		return d.outage(ctx, written)
	}
	return nil
}

// killing kills dbmazz at random moments and starts it again. The slot must be there each time, and must never go back.
func (d *demo) killing(ctx context.Context, written <-chan struct{}) error {
	conn, err := d.source.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Only read.
	rng := rand.New(rand.NewPCG(d.seed, 0))                       //nolint:gosec // When to kill is no secret.
	var confirmed uint64
	for n := range d.kills {
		d.watch.say("kill %d of %d is about to come", n+1, d.kills)
		if err := wait(ctx, time.Second+time.Duration(rng.Int64N(int64(killEvery)*2/3))); err != nil {
			return err
		}
		if ended(written) {
			return fmt.Errorf("kill %d of %d: the load had ended before; give more changes", n+1, d.kills)
		}
		// A last look, so that little of what it counts is missed. Being away would show below.
		now, _ := d.service.ask(ctx)
		if err := d.service.kill(); err != nil {
			return err
		}
		s, err := checkSlot(ctx, conn, confirmed)
		if err != nil {
			return fmt.Errorf("after kill %d: %w", n+1, err)
		}
		confirmed = s.confirmed
		d.watch.say("killed %d of %d, starting again", n+1, d.kills)
		begun := time.Now()
		if err := d.service.start(); err != nil {
			return err
		}
		if err := d.awaitServing(ctx); err != nil {
			return fmt.Errorf("after kill %d: %w", n+1, err)
		}
		d.say(fmt.Sprintf("  ok  kill %d of %d with %s changes in the queue: slot intact, serving again after %s",
			n+1, d.kills, count(now.status.GetPendingEvents()), seconds(time.Since(begun))))
	}
	d.watch.say("")
	return nil
}

func checkSlot(ctx context.Context, conn *pgx.Conn, before uint64) (slot, error) {
	s, err := readSlot(ctx, conn)
	switch {
	case err != nil:
		return s, err
	case !s.exists:
		return s, errors.New("the replication slot is gone")
	case s.lost:
		return s, errors.New("the replication slot has lost its WAL")
	case s.confirmed < before:
		return s, fmt.Errorf("the replication slot went back from %X to %X", before, s.confirmed)
	}
	return s, nil
}

// outage stops the sink under load for longer than wal_sender_timeout. dbmazz must stay connected to the source and
// go on reading into its queue.
func (d *demo) outage(ctx context.Context, written <-chan struct{}) error {
	d.watch.say("the sink stops in %s", outageAfter)
	if err := wait(ctx, outageAfter); err != nil {
		return err
	}
	before := d.watch.last()
	d.sink.process.kill()
	d.say(fmt.Sprintf("  ok  sink stopped with %s changes in the queue, walsender %v", count(before.pending()), d.watch.walsenders()))
	back := time.Now().Add(d.sinkDown)
	for left := d.sinkDown; left > 0; left = time.Until(back) {
		d.watch.say("the sink is down, back in %s", left.Round(time.Second))
		if err := wait(ctx, min(left, time.Second)); err != nil {
			return err
		}
		if now := d.watch.last(); now.slot.pid != before.slot.pid {
			return fmt.Errorf("dbmazz reconnected to the source while the sink was down: the walsender was %d and is %d",
				before.slot.pid, now.slot.pid)
		}
	}
	after := d.watch.last()
	switch grown := int64(after.pending()) - int64(before.pending()); { //nolint:gosec // Far from the limit.
	case ended(written):
		return errors.New("the load ended before the sink was back")
	case after.state.status == nil:
		return errors.New("dbmazz could not be reached at the end of the outage")
	case grown < int64(d.changes)/10:
		return fmt.Errorf("the queue grew by %s changes only while the sink was down for %s", count(grown), d.sinkDown)
	}
	if err := d.sink.restart(ctx); err != nil {
		return err
	}
	d.say(fmt.Sprintf("  ok  sink back after %s: queue grown from %s to %s changes, still walsender %v",
		d.sinkDown, count(before.pending()), count(after.pending()), d.watch.walsenders()))
	d.watch.say("the sink is back")
	return nil
}

func (l look) pending() uint64 { return l.state.status.GetPendingEvents() }

// verdict checks, after everything has arrived, what the scenario promises about the whole run.
func (d *demo) verdict() error {
	if d.sinkDown == 0 {
		return nil
	}
	if pids := d.watch.walsenders(); len(pids) != 1 {
		return fmt.Errorf("dbmazz reconnected to the source: the walsenders were %v", pids)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
