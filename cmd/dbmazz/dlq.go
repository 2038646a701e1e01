package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// dlqCmd works on the rows that were set aside (SINK_REFUSED_ROWS=dead-letter).
type dlqCmd struct {
	List  dlqListCmd  `cmd:"" help:"List the letters, oldest first."`
	Show  dlqShowCmd  `cmd:"" help:"Show one letter with the row's values."`
	Retry dlqRetryCmd `cmd:"" help:"Apply letters to the sink; those that succeed are gone."`
	Drop  dlqDropCmd  `cmd:"" help:"Give letters up for good."`
}

type (
	dlqListCmd struct {
		Table string `help:"Only letters of this table, as schema.table." placeholder:"TABLE"`
		JSON  bool   `help:"Print one JSON object per letter."`
	}
	dlqShowCmd struct {
		ID string `arg:"" help:"ID of the letter, as dbmazz dlq list prints it."`
	}
	dlqRetryCmd struct {
		IDs   []string `arg:"" optional:"" name:"id" help:"IDs of the letters."`
		Table string   `help:"All letters of this table, as schema.table." placeholder:"TABLE"`
		All   bool     `help:"All letters."`
	}
	dlqDropCmd struct {
		IDs   []string `arg:"" optional:"" name:"id" help:"IDs of the letters."`
		Table string   `help:"All letters of this table, as schema.table." placeholder:"TABLE"`
		All   bool     `help:"All letters."`
		Yes   bool     `help:"Confirm that the letters may be lost."`
	}
)

// Run lists the letters.
func (c *dlqListCmd) Run(ctx context.Context, s *streams) error {
	return withQueue(ctx, s, 0, func(ctx context.Context, t *tool) error {
		letters := deadLetters{t.bus.DeadLetters()}
		table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		n := 0
		err := letters.each(ctx, func(l bus.Letter) error {
			if c.Table != "" && l.Header[tableHeader] != c.Table {
				return nil
			}
			n++
			if l.Damaged {
				l.Header = map[string]string{reasonHeader: "the letter is damaged: a part of it is gone from the stream; it can only be dropped"}
			}
			if c.JSON {
				return json.NewEncoder(t.out).Encode(map[string]any{
					"id": l.ID, "table": l.Header[tableHeader], "key": l.Header[keyHeader], "operation": l.Header[opHeader],
					"kind": l.Header[kindHeader], "reason": l.Header[reasonHeader], "stored_at": l.StoredAt.UTC(),
				})
			}
			if n == 1 {
				fmt.Fprintln(table, "ID\tTABLE\tOPERATION\tKEY\tSET ASIDE\tREASON")
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Header[tableHeader], l.Header[opHeader], cut(l.Header[keyHeader], 40),
				l.StoredAt.Local().Format(time.DateTime), cut(l.Header[reasonHeader], 100))
			return nil
		})
		if err != nil || c.JSON {
			return err
		}
		if n == 0 {
			_, err = fmt.Fprintln(t.out, "There are no dead letters.")
			return err
		}
		return table.Flush()
	})
}

// cut shortens a text for a table.
func cut(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// Run shows one letter.
func (c *dlqShowCmd) Run(ctx context.Context, s *streams) error {
	return withQueue(ctx, s, 0, func(ctx context.Context, t *tool) error {
		letter, err := deadLetters{t.bus.DeadLetters()}.get(ctx, c.ID)
		if err != nil {
			return letterError(c.ID, err)
		}
		table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(table, "%s\t%s\n", name, value)
			}
		}
		line("letter", letter.ID)
		line("table", letter.Namespace+"."+letter.Table)
		line("operation", letter.Op)
		line("key", letter.Key)
		line("column", letter.Column)
		line("type", letter.Type)
		line("target", letter.Target)
		line("reason", letter.Reason)
		line("remedy", letter.Hint)
		line("position", letter.Position.String())
		line("committed", letter.CommitTime.Format(time.RFC3339Nano))
		line("set aside", letter.SetAside.Format(time.RFC3339Nano))
		if err := table.Flush(); err != nil {
			return fmt.Errorf("print the letter: %w", err)
		}
		return showRows(t, letter)
	})
}

// showRows prints the values of a letter. It is the one command that shows row data: it
// is what it is for.
func showRows(t *tool, letter *apply.DeadLetter) error {
	for _, data := range letter.Frames {
		frame, err := cdc.Open(data)
		if err != nil {
			return fmt.Errorf("read letter %s: %w", letter.ID, err)
		}
		schema, err := cdc.UnmarshalSchema(frame.Header.Schemas[0].Definition)
		if err != nil {
			return fmt.Errorf("read letter %s: %w", letter.ID, err)
		}
		reader, err := frame.Reader([]*cdc.Schema{schema})
		var record cdc.Record
		for more := true; err == nil && more; {
			if more, err = reader.Next(&record); more && err == nil {
				showTuple(t, "before", schema, record.Old)
				showTuple(t, "after", schema, record.New)
			}
		}
		if err != nil {
			return fmt.Errorf("read letter %s: %w", letter.ID, err)
		}
	}
	return nil
}

func showTuple(t *tool, what string, schema *cdc.Schema, tuple cdc.Tuple) {
	if len(tuple) == 0 {
		return
	}
	fmt.Fprintf(t.out, "\n%s:\n", what)
	for i := range schema.Columns {
		v, rest, ok := tuple.Next()
		if !ok {
			return
		}
		text := "NULL"
		switch v.Kind {
		case cdc.Text:
			text = fmt.Sprintf("%q", v.Bytes)
		case cdc.Unchanged:
			text = "(unchanged, not sent by PostgreSQL)"
		case cdc.Null:
		}
		fmt.Fprintf(t.out, "  %s = %s\n", schema.Columns[i].Name, text)
		tuple = rest
	}
}

func letterError(id string, err error) error {
	if errors.Is(err, bus.ErrNotFound) {
		return fmt.Errorf("there is no letter %s; dbmazz dlq list shows what there is", id)
	}
	return err
}

// chosen returns the letters that a command is about, oldest first.
func chosen(ctx context.Context, letters deadLetters, ids []string, table string, all bool) ([]bus.Letter, error) {
	ways := 0
	for _, given := range []bool{len(ids) > 0, table != "", all} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, errors.New("say which letters: give their IDs, or --table, or --all")
	}
	var out []bus.Letter
	missing := slices.Clone(ids)
	err := letters.each(ctx, func(l bus.Letter) error {
		if all || slices.Contains(ids, l.ID) || (table != "" && l.Header[tableHeader] == table) {
			out = append(out, l)
		}
		missing = slices.DeleteFunc(missing, func(id string) bool { return id == l.ID })
		return nil
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("there is no letter %s; dbmazz dlq list shows what there is", strings.Join(missing, ", "))
	}
	// IDs are in the order of positions.
	slices.SortFunc(out, func(a, b bus.Letter) int { return strings.Compare(a.ID, b.ID) })
	return out, err
}

// Run drops letters.
func (c *dlqDropCmd) Run(ctx context.Context, s *streams) error {
	return withQueue(ctx, s, 0, func(ctx context.Context, t *tool) error {
		letters := deadLetters{t.bus.DeadLetters()}
		list, err := chosen(ctx, letters, c.IDs, c.Table, c.All)
		if err != nil {
			return err
		}
		if !c.Yes {
			return fmt.Errorf("%d letters, and the others of the same rows, would be lost for good; add --yes if they may be", len(list))
		}
		dropped := map[string]bool{}
		shelf := letterShelf{letters: letters}
		for _, l := range list {
			if dropped[l.ID] {
				continue
			}
			if err := shelf.refresh(ctx); err != nil {
				return err
			}
			ids := shelf.index.Related(l.ID).Delete
			if l.Damaged {
				ids = []string{l.ID}
			}
			for _, id := range ids {
				if err := shelf.remove(ctx, id); err != nil {
					return err
				}
				dropped[id] = true
			}
		}
		_, err = fmt.Fprintf(t.out, "dropped %d letters\n", len(dropped))
		return err
	})
}
