package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// narrow makes the sink's table of item, whose column v holds no more than five bytes.
func (r *rig) narrow() {
	r.t.Helper()
	err := r.sink.Exec(`CREATE TABLE mart.item (id INT NOT NULL, v VARCHAR(5) NULL) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES("replication_num" = "1")`)
	if err != nil {
		r.t.Fatal(err)
	}
}

// widen repairs it, and waits until the change is done.
func (r *rig) widen() {
	r.t.Helper()
	if err := r.sink.Exec("ALTER TABLE mart.item MODIFY COLUMN v VARCHAR(50) NULL"); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the column is wider", func() (bool, string) {
		data, err := r.sink.Rows(sinkDatabase, "item")
		return err == nil && slices.Contains(data.Types, "VARCHAR(50)"), fmt.Sprint(data.Types, err)
	})
}

const itemDDL = "CREATE TABLE item (id int PRIMARY KEY, v text);"

// letter is one line of dbmazz dlq list --json.
type letter struct{ ID, Table, Key, Operation, Kind, Reason string }

func (a *apart) letters() []letter {
	a.t.Helper()
	var letters []letter
	decoder := json.NewDecoder(strings.NewReader(a.does("dlq", "list", "--json")))
	for decoder.More() {
		var l letter
		if err := decoder.Decode(&l); err != nil {
			a.t.Fatal(err)
		}
		letters = append(letters, l)
	}
	return letters
}

func TestRefusedRowIsSetAsideAndComesBackOnceTheSinkCanTakeIt(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, itemDDL+loadDDL, append([]string{"item"}, loadTables...)...)
		r.narrow()
		a := r.set("SINK_REFUSED_ROWS", "dead-letter").set("SINK_DELETE_MODE", mode).onSocket()
		capture, apply := a.both()
		l := r.load(random(t), 5*time.Millisecond)
		l.more(20)
		r.db.Exec("INSERT INTO item VALUES (1, 'short'), (42, 'hidden-value'), (2, 'short'), (7, 'hidden-as-well'), (9, 'never-stored')")
		r.flows()
		r.db.Exec("UPDATE item SET v = 'fits' WHERE id = 42; UPDATE item SET v = 'other' WHERE id = 1; DELETE FROM item WHERE id = 9")
		l.more(20)
		r.flows()
		l.stop()
		r.same(apply, loadTables...)
		for _, s := range []*service{capture, apply} {
			if n, sample := s.look().GetDeadLetters(), s.sample().GetDeadLetters(); n < 3 || sample != n {
				t.Errorf("the status counts %d letters, the metrics %d", n, sample)
			}
			s.serving()
		}
		for _, s := range []*service{capture, apply} {
			if strings.Contains(s.out.String(), "hidden") {
				t.Error("a value is in the log")
			}
		}
		letters := a.letters()
		t.Logf("%+v", letters)
		at := slices.IndexFunc(letters, func(l letter) bool { return strings.Contains(l.Key, "42") })
		if at < 0 || letters[at].Table != "public.item" || !strings.Contains(letters[at].Reason, "v") {
			t.Fatalf("no letter of the row with id 42: %+v", letters)
		}
		list, shown := a.does("dlq", "list"), a.does("dlq", "show", letters[at].ID)
		t.Logf("\n%s\n%s", list, shown)
		if strings.Contains(list, "hidden") || !strings.Contains(shown, "hidden-value") || !strings.Contains(shown, "public.item") {
			t.Error("the list must not show the values, and show must")
		}
		a.fails([]string{"dlq", "retry", "--all"}, "item", "v")
		a.widen()
		t.Log(a.does("dlq", "retry", "--all"))
		r.same(apply, append([]string{"item"}, loadTables...)...)
		if left := a.letters(); len(left) > 0 {
			t.Errorf("letters are left: %+v", left)
		}
	})
}

func TestDroppedLettersAreGoneForGood(t *testing.T) {
	t.Parallel()
	a := setup(t, itemDDL, "item").set("SINK_REFUSED_ROWS", "dead-letter").onSocket()
	a.narrow()
	_, apply := a.both()
	a.db.Exec("INSERT INTO item VALUES (1, 'much too long'), (2, 'as well, too long')")
	a.settle(apply)
	letters := a.letters()
	if len(letters) != 2 {
		t.Fatalf("letters %+v, want two", letters)
	}
	a.fails([]string{"dlq", "drop", letters[0].ID}, "--yes")
	a.fails([]string{"dlq", "drop", "--yes"}, "--all")
	a.fails([]string{"dlq", "show", "no-such-letter"}, "no-such-letter")
	a.does("dlq", "drop", letters[0].ID, "--yes")
	if left := a.letters(); len(left) != 1 || left[0] != letters[1] {
		t.Errorf("left are %+v", left)
	}
	a.widen()
	a.does("dlq", "retry", letters[1].ID)
	if n := a.count("item", "id > 0"); n != 1 {
		t.Errorf("the sink has %d rows, want the one that was retried", n)
	}
	if list := a.does("dlq", "list"); !strings.Contains(list, "no dead letters") {
		t.Errorf("the list is\n%s", list)
	}
}

// TestKillsWhileRowsAreSetAsideLoseNoneOfThem: each refused row is a letter or in the
// sink, whenever the process dies.
func TestKillsWhileRowsAreSetAsideLoseNoneOfThem(t *testing.T) {
	t.Parallel()
	random := random(t)
	r := setup(t, itemDDL, "item").set("SINK_REFUSED_ROWS", "dead-letter").set("FLUSH_SIZE", "40")
	r.narrow()
	s := r.start()
	id := 0
	for range number(t, roundsEnv, 5) {
		for range 10 {
			statement := fmt.Sprintf("INSERT INTO item SELECT i, CASE WHEN i %% 7 = 0 THEN 'much too long' ELSE 'ok' END FROM generate_series(%d, %d) i", id+1, id+20)
			r.db.Exec(statement + fmt.Sprintf("; UPDATE item SET v = 'short' WHERE id = %d; DELETE FROM item WHERE id = %d", 7*(1+random.IntN(id/7+1)), 7*(1+random.IntN(id/7+1))))
			id += 20
		}
		wait := time.NewTimer(time.Duration(50+random.IntN(300)) * time.Millisecond)
		<-wait.C
		s.kill()
		s = r.up()
	}
	r.settle(s)
	a := r.onSocket()
	refused := pgtest.Value[int](r.db, "SELECT count(*) FROM item WHERE length(v) > 5")
	t.Logf("%d letters of %d rows that were refused and are still there", len(a.letters()), refused)
	a.widen()
	t.Log(a.does("dlq", "retry", "--all"))
	r.same(s, "item")
	if left := a.letters(); len(left) > 0 {
		t.Errorf("letters are left: %+v", left)
	}
}
