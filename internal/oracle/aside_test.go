package oracle_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// setAside is the sink, but a row that it refuses is taken out of the batch and remembered, so that one run can try
// many of them. It goes by the key that the error names, so that an error which names the wrong row fails the test.
type setAside struct {
	*starrocks.Sink

	mu sync.Mutex
	// strict passes refusals on, as in the service.
	strict bool
	// refusals are by table and by the row's key.
	refusals map[string]map[string]*apply.RowError
	lost     error // a refusal that names no row
}

// Apply implements apply.Sink.
func (s *setAside) Apply(ctx context.Context, given *apply.TableBatch) (apply.Result, error) {
	batch := *given
	for n := 1; ; n++ {
		result, err := s.Sink.Apply(ctx, &batch)
		refusal, ok := errors.AsType[*apply.RowError](err)
		if !ok {
			return result, err
		}
		at := -1
		for i := range batch.Rows {
			if rowKey(batch.Schema, batch.Rows[i].Tuple) == refusal.Key {
				at = i
			}
		}
		if !s.take(batch.Schema.Name(), refusal, at >= 0) {
			return result, err
		}
		if len(batch.Rows) == 1 {
			return apply.Result{}, nil
		}
		batch.Rows = append(append([]apply.Row(nil), batch.Rows[:at]...), batch.Rows[at+1:]...)
		batch.ID = fmt.Sprintf("%s-r%d", given.ID, n) // Other rows are another load.
	}
}

func (s *setAside) take(table string, refusal *apply.RowError, found bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !found {
		s.lost = fmt.Errorf("a refusal of table %s names the key %q, which the batch does not have: %w", table, refusal.Key, refusal)
	}
	if s.strict || !found {
		return false
	}
	if s.refusals[table] == nil {
		s.refusals[table] = map[string]*apply.RowError{}
	}
	s.refusals[table][refusal.Key] = refusal
	return true
}

// setStrict switches between passing refusals on and setting rows aside.
func (s *setAside) setStrict(strict bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict = strict
}

// taken returns the refusals of a table since the last call.
func (s *setAside) taken(table string) map[string]*apply.RowError {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.refusals["public."+table]
	delete(s.refusals, "public."+table)
	return found
}

// rowKey is the key of a row as a refusal names it.
func rowKey(schema *cdc.Schema, tuple cdc.Tuple) string {
	texts := make([]string, len(schema.Columns))
	for i := range texts {
		v, rest, _ := tuple.Next()
		tuple = rest
		texts[i] = string(v.Bytes)
	}
	names, values := make([]string, len(schema.Key)), make([]string, len(schema.Key))
	for n, i := range schema.Key {
		names[n], values[n] = schema.Columns[i].Name, texts[i]
	}
	return namedKey(names, values)
}

// namedKey prints a key on one line; long values are cut.
func namedKey(names, values []string) string {
	const shown = 100
	parts := make([]string, len(names))
	for i, text := range values {
		end := ""
		if len(text) > shown {
			text, end = text[:shown], "..."
		}
		quoted := strconv.Quote(text)
		parts[i] = names[i] + "=" + quoted[1:len(quoted)-1] + end
	}
	return strings.Join(parts, ", ")
}
