package capture

import (
	"context"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// reportLoop tells the server what may be forgotten: when the sink has got further,
// when the server or somebody else asks, and at least every interval.
func (s *session) reportLoop(ctx context.Context, keepAlive time.Duration) error {
	interval := s.c.cfg.StatusInterval
	if keepAlive > 0 {
		interval = min(interval, keepAlive/3)
	}
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for due := true; ; {
		// Asked for before the checkpoint is read, so that no change is missed.
		changed := s.c.progress.Changed()
		if err := s.answer(ctx, due, interval); err != nil {
			return err
		}
		if due && s.c.streamAgain(s) {
			return errStreamAgain
		}
		due = false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-s.c.wake:
		case <-timer.C:
			due = true
			timer.Reset(interval)
		}
	}
}

// answer sends what is due. The first report waits for nothing, since the server may
// be waiting for it; an advance past what the sink has applied is remembered first.
func (s *session) answer(ctx context.Context, due bool, interval time.Duration) error {
	c := s.c
	c.mu.Lock()
	wanted := c.wants
	c.wants = wants{}
	c.mu.Unlock()
	if wanted.anew {
		return errPartitions
	}
	s.mu.Lock()
	ping := s.ping
	s.ping = false
	if cp, ok := c.progress.Checkpoint(); ok {
		s.confirm.apply(cp.End)
	}
	s.mu.Unlock()
	if err := s.report(wanted.reply, due || ping || wanted.reply); err != nil {
		return err
	}
	if ping && s.outstanding() || due && s.stuck() {
		if err := s.makeWay(ctx); err != nil {
			return err
		}
	}
	if !due && !ping && !wanted.idle {
		return nil
	}
	s.mu.Lock()
	lsn, settled, ok := s.confirm.idle()
	s.mu.Unlock()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(interval, time.Second))
	defer cancel()
	if err := s.record.update(ctx, func(id *identity) { id.Confirmed, id.Settled = lsn, settled }); err != nil {
		return err
	}
	killpoint.Reached("capture.remembered")
	s.mu.Lock()
	s.confirm.save(lsn)
	s.mu.Unlock()
	return s.report(false, false)
}

// report sends a status update if it says something new or must be sent anyway.
func (s *session) report(wantReply, always bool) error {
	if err := s.c.fence(); err != nil {
		return err
	}
	s.mu.Lock()
	lsn, before := s.confirm.next(), s.confirm.sent
	if lsn == before && !always {
		s.mu.Unlock()
		return nil
	}
	s.confirm.send(lsn)
	killpoint.Reached("capture.confirming")
	// Written under the lock, so that reports keep their order.
	err := s.sock.report(lsn, wantReply)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	killpoint.Reached("capture.confirmed")
	s.c.confirmed(lsn)
	return nil
}

func (c *Capture) confirmed(lsn cdc.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Confirmed = max(c.status.Confirmed, lsn)
}
