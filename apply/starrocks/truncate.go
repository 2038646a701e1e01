package starrocks

import (
	"context"
	"fmt"

	"github.com/dbmazz/dbmazz/apply"
)

// Truncate implements [apply.Sink].
func (s *Sink) Truncate(ctx context.Context, t *apply.TableTruncate) error {
	l, err := s.layoutOf(t.Schema)
	if err != nil {
		return err
	}
	// Rows that queries do not see yet would be left out.
	if err := s.published(ctx, l.table); err != nil {
		return err
	}
	switch {
	case l.appends:
		err = s.truncateAppended(ctx, l, t)
	case t.Guarded:
		err = s.truncateGuarded(ctx, l, t)
	case s.config.DeleteMode == DeleteSoft:
		err = s.exec(ctx, softTruncate(s.tableName(l.table), l, t))
	default:
		// Not TRUNCATE TABLE: no label and no condition would hold back a statement that
		// arrives late, on a connection that was cut off, after another process has
		// carried it out and gone on.
		err = s.exec(ctx, "DELETE FROM "+s.tableName(l.table)+" WHERE "+l.upTo(t.Position.Commit))
	}
	if err != nil {
		return fmt.Errorf("truncate table %s in StarRocks: %w", l.table, err)
	}
	return nil
}

// softTruncate marks the rows that were there at the truncate's position. Done twice it
// finds nothing the second time, since no later change is applied in between. Rows
// without a version were there before dbmazz.
func softTruncate(table string, l *layout, t *apply.TableTruncate) string {
	op, deleted, syncedAt, version := quoteName(l.audit[atOp]), quoteName(l.audit[atDeleted]), quoteName(l.audit[atSynced]), quoteName(l.audit[atVersion])
	commit := uint64(t.Position.Commit)
	return fmt.Sprintf("UPDATE %s SET %s = %d, %s = true, %s = %s, %s = %d WHERE (%s = false OR %s IS NULL) AND %s",
		table, op, apply.OpDelete, deleted, syncedAt, quoteText(t.SyncedAt.UTC().Format(synced)), version, commit,
		deleted, deleted, l.upTo(t.Position.Commit))
}
