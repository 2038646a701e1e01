package starrocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// deliver returns nil once the load is committed. It counts the requests that had to be
// repeated or whose outcome had to be asked for.
func (s *Sink) deliver(ctx context.Context, l *layout, r *request) (retries int, err error) {
	for try := 1; ; try++ {
		if err := apply.Allowed(ctx); err != nil {
			return retries, err
		}
		killpoint.Reached("sink.sending")
		a, err := s.load.put(ctx, r)
		killpoint.Reached("sink.answered")
		if ctx.Err() != nil {
			return retries, ctx.Err()
		}
		if fence := apply.Allowed(ctx); err != nil && fence != nil {
			return retries, fence
		}
		v, hint := judge(r, a, err)
		if err == nil {
			err = errors.New(a.describe())
		}
		switch v {
		case verdictCommitted:
			s.noteState(r.table, r.label, stateVisible)
			return retries, nil
		case verdictUnpublished:
			s.noteState(r.table, r.label, stateCommitted)
			return retries, nil
		case verdictCounters:
			return retries, permanent(fmt.Errorf("load %s into %s: committed, but of %d rows sent StarRocks counts %d loaded, %d filtered, %d unselected: %w; the batch is sent again under another label",
				r.label, r.table, r.rows, a.NumberLoadedRows, a.NumberFilteredRows, a.NumberUnselectedRows, apply.ErrIncomplete))
		case verdictStop:
			if a == nil {
				return retries, permanent(fmt.Errorf("load %s into %s: %w", r.label, r.table, err))
			}
		case verdictDoubt, verdictRow: // The state of the label decides.
		}
		retries++
		apply.Waiting(ctx, fmt.Errorf("load %s: %w", r.label, err))
		state, stateErr := s.settle(ctx, r.table, r.label)
		if stateErr != nil {
			return retries, fmt.Errorf("load %s into %s: %w; its outcome is open: %w", r.label, r.table, err, stateErr)
		}
		killpoint.Reached("sink.settled")
		s.config.Logger.WarnContext(ctx, "load had no clear answer", slog.String("table", r.table), slog.String("label", r.label),
			slog.String("state", string(state)), slog.Int("try", try), slog.Any("err", err))
		if done, err := s.resolved(ctx, r, state); done || err != nil {
			return retries, err
		}
		switch {
		case v == verdictRow:
			return retries, s.refusedRow(ctx, l, a, hint)
		case v == verdictStop:
			return retries, permanent(fmt.Errorf("load %s into %s: %w: %s", r.label, r.table, err, hint))
		case try >= s.retry.attempts:
			return retries, fmt.Errorf("load %s into %s: not committed after %d tries: %w", r.label, r.table, try, err)
		}
		if err := s.retry.wait(ctx, try); err != nil {
			return retries, err
		}
	}
}

// resolved tells whether the settled state of a label leaves nothing to do. What is
// committed is looked for, since no state says how many rows that were. So are rows that
// must not be sent twice: they, not the label, say what is done.
func (s *Sink) resolved(ctx context.Context, r *request, state labelState) (done bool, err error) {
	s.noteState(r.table, r.label, state)
	if !state.committed() && !r.once {
		return false, nil
	}
	missing, err := r.missing(ctx, r)
	if err == nil && missing > 0 && state.committed() {
		err = incomplete(r, missing)
	}
	return err == nil && missing == 0, err
}

// incomplete is the error for a load that is committed although rows are missing.
func incomplete(r *request, missing int64) error {
	return permanent(fmt.Errorf("load %s into %s: committed, but the table does not have %d of its rows as they were sent: %w; they are sent again under another label",
		r.label, r.table, missing, apply.ErrIncomplete))
}

// describe says what StarRocks answered, without what may be a value of a row.
func (a *answer) describe() string {
	text, _ := refusalText(a.message(), nil)
	if text == "" {
		return fmt.Sprintf("StarRocks answers %q", a.Status)
	}
	return fmt.Sprintf("StarRocks answers %q: %s", a.Status, text)
}

// settle waits until the state of a label is final or unknown. A load that stays open
// is cancelled: its connection is gone, and only an aborted label may be used again.
func (s *Sink) settle(ctx context.Context, table, label string) (labelState, error) {
	for n := 1; ; n++ {
		state, err := s.load.state(ctx, label)
		if err == nil && state.settled() {
			return state, nil
		}
		if IsPermanent(err) || ctx.Err() != nil {
			return "", errors.Join(err, ctx.Err())
		}
		if err == nil {
			err = fmt.Errorf("label %s is %s", label, state)
			if n%s.retry.polls == 0 {
				if cancelErr := s.load.cancel(ctx, table, label); cancelErr != nil {
					err = errors.Join(err, cancelErr)
				}
			}
		}
		if n >= 2*s.retry.polls {
			return "", err
		}
		apply.Waiting(ctx, err)
		if err := s.retry.wait(ctx, n); err != nil {
			return "", err
		}
	}
}

// noteState keeps in mind whether queries see the last load of a table.
func (s *Sink) noteState(table, label string, state labelState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case stateVisible:
		// Versions of a table become visible in order, so an earlier load is too.
		delete(s.unpublished, table)
		s.seen[table] = true
	case stateCommitted:
		s.unpublished[table] = label
	default: // Says nothing about the loads before.
	}
}

// published waits until queries see every load of the table that was committed by this
// process.
func (s *Sink) published(ctx context.Context, table string) error {
	s.mu.Lock()
	label := s.unpublished[table]
	s.mu.Unlock()
	for n := 1; label != ""; n++ {
		state, err := s.load.state(ctx, label)
		if err == nil && state != stateCommitted {
			// Forgotten labels are those of loads that are visible.
			s.noteState(table, label, stateVisible)
			return nil
		}
		if n >= 2*s.retry.polls {
			if err == nil {
				err = fmt.Errorf("label %s is committed but not visible yet", label)
			}
			return fmt.Errorf("read table %s: %w", table, err)
		}
		if err := s.retry.wait(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// refusedRow makes the error for a row that StarRocks has filtered, from the log that
// it keeps about it.
func (s *Sink) refusedRow(ctx context.Context, l *layout, a *answer, hint string) *apply.RowError {
	reason, _ := refusalText(a.message(), l.columns)
	e := &apply.RowError{Table: l.schema.Name(), Reason: "StarRocks refuses it: " + reason, Hint: hint}
	if e.Hint == "" {
		e.Hint = "correct the value in the source, or change the column in StarRocks"
	}
	if a.ErrorURL == "" {
		return e
	}
	lines, err := s.load.errorLines(ctx, a.ErrorURL)
	if err != nil || len(lines) == 0 || lines[0] == "" {
		e.Hint += "; StarRocks has details at " + a.ErrorURL
		return e
	}
	reason, name := refusalText(lines[0], l.columns)
	e.Reason = "StarRocks refuses it: " + reason
	e.Key = l.keyOfLine(lines[0])
	for i := range l.columns {
		if c := &l.columns[i]; c.name == name {
			e.Column, e.Type, e.Target = c.source.Name, c.source.TypeName, c.target.String()
		}
	}
	return e
}

// keyOfLine takes the key from a line of StarRocks's error log, if it shows the row as
// it was sent.
func (l *layout) keyOfLine(line string) string {
	_, row, _ := strings.Cut(line, "Row: ")
	var values map[string]json.RawMessage
	if json.Unmarshal([]byte(strings.TrimSpace(row)), &values) != nil {
		return ""
	}
	if l.appends {
		return l.positionOfLine(values)
	}
	var parts []string
	for _, i := range l.key {
		c := &l.columns[i]
		text := string(values[c.name])
		var unquoted string
		if json.Unmarshal(values[c.name], &unquoted) == nil {
			text = printable([]byte(unquoted))
		}
		parts = append(parts, c.source.Name+"="+text)
	}
	return strings.Join(parts, ", ")
}
