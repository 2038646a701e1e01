package bus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// checkDeadline ends the wait for answers: when all have come after a refusal, or when
// they are overdue.
func (s *session) checkDeadline() error {
	if s.deadline.IsZero() || time.Now().Before(s.deadline) {
		return nil
	}
	if s.sent == 0 && s.cause == nil {
		s.deadline = time.Time{}
		return nil
	}
	full := errors.Is(s.cause, errHold)
	if !full {
		s.p.setState(StateDoubt)
		s.b.log.Warn("publisher checks what is stored", "err", s.cause, "outstanding", s.sent)
		// The embedded server does not answer any more after a write error.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout) //nolint:forbidigo // The session ends by Close.
		err := s.b.heal(ctx)
		cancel()
		if err != nil {
			s.retryLater(err)
			return nil
		}
	}
	return s.resolve(full)
}

// retryLater asks again after a pause.
func (s *session) retryLater(err error) {
	s.cause = err
	s.deadline = time.Now().Add(min(holdMax, holdMin<<min(s.retries, 10)))
	s.retries++
}

// resolve finds out how far the stream has got and starts another round behind it.
func (s *session) resolve(full bool) error {
	ctx, cancel := s.patience()
	defer cancel()
	info, err := s.b.streamInfo(ctx)
	if isLost(err) {
		return fmt.Errorf("publish to stream %s: %w", s.b.cfg.streamName(), err)
	}
	if err != nil {
		s.retryLater(err)
		return nil
	}
	end := info.State.LastSeq
	s.clustered = isClustered(info)
	if end < s.last {
		return fmt.Errorf("publish to stream %s: it ends at sequence %d, but %d was stored: its end was lost", s.b.cfg.streamName(), end, s.last)
	}
	if end > s.last+uint64(s.sent) { //nolint:gosec // A length.
		return s.fenced(end, "nobody here has sent it")
	}
	// The message at the end tells about all before it: each was stored only
	// behind the one that it names.
	want := s.lastID
	if end > s.last {
		want = s.queue[end-s.last-1].msg.Header.Get(headerID)
	}
	if want != "" {
		m, ok, err := s.b.message(ctx, end)
		switch {
		case err != nil:
			s.retryLater(err)
			return nil
		case !ok && end > s.last:
			return &GapError{Expected: end, Reason: "a message that was just stored cannot be read"}
		case ok && m.header.Get(headerID) != want:
			return s.fenced(end, "its id is "+m.header.Get(headerID)+", not "+want)
		}
	}
	s.storedUpTo(end)
	return s.nextRound(full)
}

func (s *session) fenced(sequence uint64, why string) error {
	return fmt.Errorf("publish to stream %s: sequence %d was written by somebody else (%s): %w", s.b.cfg.streamName(), sequence, why, ErrFenced)
}

func (s *session) nextRound(full bool) error {
	cause := s.cause
	s.round++
	s.sent, s.bytes, s.refused, s.cause = 0, 0, 0, nil
	s.deadline = time.Time{}
	switch {
	case len(s.queue) == 0:
		s.p.setState(StatePublishing)
	case full:
		select {
		case s.b.wanted <- struct{}{}:
		default:
		}
		s.pause(StateFull)
	case s.doubts >= doubtsMax && cause != nil:
		return fmt.Errorf("publish to stream %s: sequence %d was refused %d times: %w", s.b.cfg.streamName(), s.last+1, s.doubts, cause)
	default:
		s.doubts++
		s.pause(StateDoubt)
	}
	return nil
}

// settle waits a moment for the answers that are due, so that the next session finds
// a quiet stream.
func (s *session) settle() {
	limit := time.NewTimer(closePatience)
	defer limit.Stop()
	for s.sent > 0 && s.cause == nil {
		select {
		case m := <-s.acks:
			if s.answer(m) != nil {
				return
			}
		case <-limit.C:
			return
		}
	}
	s.wake()
}
