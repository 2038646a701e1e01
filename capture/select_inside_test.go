package capture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// glob is a pattern over schema.table.
type glob string

func (g glob) Match(schema, name string) bool {
	ok, err := path.Match(string(g), schema+"."+name)
	return ok && err == nil
}

func (g glob) String() string { return string(g) }

func parseSelection(text string) (s Selection) {
	for word := range strings.FieldsSeq(text) {
		except, out := strings.CutPrefix(word, "!")
		schema, name, _ := strings.Cut(word, ".")
		switch {
		case out:
			s.Except = append(s.Except, glob(except))
		case strings.ContainsAny(word, "*?"):
			s.Patterns = append(s.Patterns, glob(word))
		default:
			s.Tables = append(s.Tables, Table{schema, name})
		}
	}
	return s
}

func TestSelectionIsAppliedToTheCatalog(t *testing.T) {
	t.Parallel()
	all := []listed{
		{table: Table{"s", "z"}, oid: 1, kind: "r"},
		{table: Table{"s", "a"}, oid: 2, kind: "r"},
		{table: Table{"x", "a"}, oid: 3, kind: "r"},
		{table: Table{"s", "root"}, oid: 10, kind: "p"},
		{table: Table{"s", "mid"}, oid: 11, kind: "p", ancestors: []uint32{10}},
		{table: Table{"s", "leaf1"}, oid: 12, kind: "r", ancestors: []uint32{10}},
		{table: Table{"x", "leaf2"}, oid: 13, kind: "r", ancestors: []uint32{11, 10}},
	}
	for _, c := range []struct {
		selection  string
		leaves     bool
		want, idle string
	}{
		{"s.a s.gone", false, "s.a s.gone", ""},
		{"s.*", false, "s.a* s.root* s.z*", ""},
		{"s.z s.* !s.a", false, "s.z s.root*", ""},
		{"s.* x.* q.*", false, "s.a* s.root* s.z* x.a*", "q.*"},
		{"s.leaf?", false, "", "s.leaf?"},
		{"s.leaf1", false, "s.leaf1", ""},
		{"s.root", false, "s.root", ""},
		{"s.root", true, "s.leaf1* x.leaf2*", ""},
		{"s.mid", true, "x.leaf2*", ""},
		{"s.r*", true, "s.leaf1* x.leaf2*", ""},
		{"s.*", true, "s.a* s.leaf1* s.z* x.leaf2*", ""},
		{"s.* !s.mid", true, "s.a* s.leaf1* s.z*", ""},
		{"s.* !x.leaf2", true, "s.a* s.leaf1* s.z*", ""},
		{"x.leaf2 x.*", true, "x.leaf2 x.a*", ""},
		{"*.* !s.root", true, "s.a* s.z* x.a*", ""},
	} {
		s := parseSelection(c.selection)
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		tables, idle := s.choose(all, c.leaves)
		var got, none []string
		for _, t := range tables {
			name := t.table.String()
			if t.matched {
				name += "*"
			}
			got = append(got, name)
		}
		for _, p := range idle {
			none = append(none, p.String())
		}
		if g, n := strings.Join(got, " "), strings.Join(none, " "); g != c.want || n != c.idle {
			t.Errorf("%s, leaves %t: got %q, idle %q; want %q, %q", c.selection, c.leaves, g, n, c.want, c.idle)
		}
	}
}

func TestTablesThatWouldShareATargetAreKeptApart(t *testing.T) {
	t.Parallel()
	target := func(t Table) string { return t.Name }
	infos := func() []tableInfo {
		return []tableInfo{{table: Table{"a", "t"}, matched: true}, {table: Table{"b", "t"}, matched: true}, {table: Table{"b", "u"}, matched: true}}
	}
	s := &survey{infos: infos()}
	if s.separate(target, nil); len(s.problems) != 1 || !strings.Contains(s.problems[0], "tables a.t and b.t would") {
		t.Errorf("at the first start: %v", s.problems)
	}
	for name, id := range map[string]*identity{
		"the other is captured":   {Published: []Table{{"b", "t"}}},
		"the other was once":      {Former: []Table{{"b", "t"}}},
		"another, that is gone":   {Former: []Table{{"c", "t"}}, Published: []Table{{"b", "u"}}},
		"both come at a time":     {Published: []Table{{"b", "u"}}},
		"the first was there too": {Former: []Table{{"a", "t"}}, Published: []Table{{"b", "t"}}},
	} {
		s := &survey{infos: infos()}
		s.separate(target, id)
		if len(s.problems) > 0 || len(s.left) == 0 {
			t.Errorf("%s: left %v, problems %v", name, s.left, s.problems)
		}
		owners := map[string]bool{}
		for _, o := range slices.Concat(id.Published, id.Former) {
			if !slices.ContainsFunc(s.infos, func(i tableInfo) bool { return i.table == o }) && o.Schema == "c" {
				owners[o.Name] = true
			}
		}
		for _, i := range s.infos {
			if owners[i.table.Name] {
				t.Errorf("%s: %v has a target that is taken", name, i.table)
			}
			owners[i.table.Name] = true
		}
	}
	s = &survey{infos: []tableInfo{{table: Table{"a", "t"}}}}
	if s.separate(target, &identity{Former: []Table{{"b", "t"}}}); len(s.problems) != 1 {
		t.Errorf("a named one: %v", s.problems)
	}
}

func TestFiltersAreStoredAsTheyAre(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // A test.
	for range 200 {
		var list filters
		var tables []Table
		for i := range rnd.IntN(20) {
			switch rnd.IntN(4) {
			case 0:
				if len(tables) > 0 {
					tables = slices.Delete(slices.Clone(tables), 0, 1)
				}
			case 1:
				tables = slices.Clone(tables)
				slices.Reverse(tables)
			default:
				tables = append(slices.Clone(tables), Table{"s", fmt.Sprint("t", rnd.IntN(1000), "_", i)})
			}
			list = append(list, filter{Since: cdc.LSN(i), Tables: tables})
		}
		data, err := json.Marshal(&identity{Filters: list})
		if err != nil {
			t.Fatal(err)
		}
		var back identity
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		same := cmp.Comparer(func(a, b []Table) bool { return slices.Equal(a, b) })
		if diff := cmp.Diff([]filter(list), []filter(back.Filters), same); diff != "" {
			t.Fatal(diff)
		}
	}
	// A thousand tables that come one by one.
	var list filters
	var tables []Table
	for i := range 1000 {
		tables = append(slices.Clone(tables), Table{"public", fmt.Sprintf("a_table_with_a_name_%d", i)})
		list = append(list, filter{Since: cdc.LSN(i), Tables: tables})
	}
	if data, err := json.Marshal(list); err != nil || len(data) > 200_000 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// A record of before has the whole list in each filter.
func TestFiltersOfBeforeAreRead(t *testing.T) {
	t.Parallel()
	var id identity
	if err := json.Unmarshal([]byte(`{"version":1,"filters":[{"since":"0/1","tables":[{"schema":"s","name":"a"}]},{"since":"0/2","tables":[{"schema":"s","name":"b"}]}]}`), &id); err != nil {
		t.Fatal(err)
	}
	if len(id.Filters) != 2 || id.Filters[1].Tables[0].Name != "b" || id.Filters[1].Since != 2 {
		t.Errorf("%+v", id.Filters)
	}
}
