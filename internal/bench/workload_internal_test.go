package main

import (
	"strings"
	"testing"
)

func TestWorkloadsFillWholeTransactions(t *testing.T) {
	t.Parallel()
	for _, w := range workloads {
		for _, rows := range []int{1000, 12_345, 300_000} {
			if n := w.changes(rows); n < 1 || n%w.size != 0 {
				t.Errorf("%s: %d row changes in transactions of %d", w.name, n, w.size)
			}
		}
		for _, text := range []string{w.schema, w.before, w.load, w.mark} {
			if text = w.statement(text, 1000); strings.ContainsAny(strings.ReplaceAll(text, "'{}'", ""), "{}") {
				t.Errorf("%s: a size is not filled in: %s", w.name, text)
			}
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-workloads", "nothing"}, {"-parts", "x"}, {"-rows", "1"}, {"-rates", "0"}, {"-lasting", "1s"}, {"more"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	if o, err := parse(nil); err != nil || o.pairs != 1 {
		t.Errorf("without arguments: %+v, %v", o, err)
	}
}
