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
	statement := "TRUNCATE TABLE " + s.tableName(l.table)
	if s.config.DeleteMode == DeleteSoft {
		statement = softTruncate(s.tableName(l.table), l, t)
	}
	if _, err := s.db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("truncate table %s in StarRocks: %w", l.table, sqlError(err))
	}
	return nil
}

// softTruncate marks the rows that were there at the truncate's position. Done twice it
// finds nothing the second time, since no later change is applied in between. Rows
// without a version were there before dbmazz.
func softTruncate(table string, l *layout, t *apply.TableTruncate) string {
	op, deleted, syncedAt, version := quoteName(l.audit[0]), quoteName(l.audit[1]), quoteName(l.audit[2]), quoteName(l.audit[3])
	commit := int64(t.Position.Commit) //nolint:gosec // The column is signed; LSNs are below 2^63.
	return fmt.Sprintf("UPDATE %s SET %s = %d, %s = true, %s = %s, %s = %d WHERE (%s = false OR %s IS NULL) AND (%s <= %d OR %s IS NULL)",
		table, op, apply.OpDelete, deleted, syncedAt, quoteText(t.SyncedAt.UTC().Format(synced)), version, commit,
		deleted, deleted, version, commit, version)
}
