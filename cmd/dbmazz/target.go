package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/config"
)

// target is what the checkpoint of apply is about. It means nothing for another database,
// and what a deleted row looks like must be the same for all who write the tables.
type target struct {
	Type       string `json:"type"`
	Database   string `json:"database"`
	DeleteMode string `json:"delete_mode"`
	// TableName is SINK_TABLE_NAME.
	TableName string `json:"table_name,omitempty"`
}

func targetOf(c config.Config) target {
	return target{Type: c.SinkType, Database: c.SinkDatabase, DeleteMode: c.SinkDeleteMode, TableName: c.SinkTableName}
}

// loadTarget reads what the pipeline writes to; known is false before apply has ever run.
func loadTarget(ctx context.Context, b *bus.Bus) (t target, revision uint64, known bool, err error) {
	data, revision, err := bucket{b, keySink}.LoadState(ctx)
	if err != nil || len(data) == 0 {
		return t, revision, false, err
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, revision, false, fmt.Errorf("decode what the pipeline writes to: %w", err)
	}
	return t, revision, true, nil
}

// claimTarget makes sure that apply goes on where the checkpoint is about. Another way of
// deleting is taken over with a warning: rows from before stay as they are.
func claimTarget(ctx context.Context, b *bus.Bus, mine target, log *slog.Logger) error {
	have, revision, known, err := loadTarget(ctx, b)
	if err != nil {
		return err
	}
	if known && (have.Type != mine.Type || have.Database != mine.Database) {
		return fmt.Errorf("the pipeline writes to database %q in %s, SINK_DATABASE is %q: what was applied there would be missing here. Set it back; "+
			"or start over with a new SOURCE_SLOT_NAME; dbmazz replay --sink-database fills another database with what is retained", have.Database, have.Type, mine.Database)
	}
	if known && have.TableName != mine.TableName {
		return fmt.Errorf("the pipeline writes to tables that are named by SINK_TABLE_NAME=%q, it is %q: what was applied to them would be missing in those of the other names. "+
			"Set it back; or start over with a new SOURCE_SLOT_NAME and SINK_DATABASE", have.TableName, mine.TableName)
	}
	if known && have == mine {
		return nil
	}
	if known {
		log.WarnContext(ctx, "SINK_DELETE_MODE differs from that of the process that applied before; rows that were deleted until now stay as they are",
			"before", have.DeleteMode, "now", mine.DeleteMode)
	}
	data, err := json.Marshal(mine)
	if err != nil {
		return fmt.Errorf("encode what the pipeline writes to: %w", err)
	}
	_, err = bucket{b, keySink}.SaveState(ctx, data, revision)
	return err
}

// checkTarget refuses a tool that would write live tables in another way than apply.
func checkTarget(ctx context.Context, b *bus.Bus, mine target) error {
	have, _, known, err := loadTarget(ctx, b)
	if err != nil || !known || have == mine {
		return err
	}
	if have.TableName != mine.TableName {
		return fmt.Errorf("SINK_TABLE_NAME is %q here and %q in the pipeline: set the same", mine.TableName, have.TableName)
	}
	if have.DeleteMode != mine.DeleteMode {
		return fmt.Errorf("SINK_DELETE_MODE is %s here and %s in the pipeline: set the same", mine.DeleteMode, have.DeleteMode)
	}
	return errors.New("SINK_DATABASE is not that of the pipeline, which writes to " + have.Database + ": set the same, or use dbmazz replay --sink-database")
}
