package chaos_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
)

// The patience of the end of a run. Backoffs go up to 15 s, and those of copies to 60 s.
const (
	drainLooks = int(150 * time.Second / lookEvery)
	// failedLooks is for runs whose verdict is out.
	failedLooks = int(20 * time.Second / lookEvery)
	// copyLooks is how long the copy may stand still.
	copyLooks = int(90 * time.Second / lookEvery)
	// endWithin bounds all of it.
	endWithin = 15 * time.Minute
)

// execute plays the run from its beginning to the verdict.
func (r *run) execute() *outcome {
	r.setUp()
	if (!r.shape.existing || r.shape.withheld) && !r.awaitSlot() {
		return r.outcome(&verdict{}, &watcher{})
	}
	r.load = r.startLoad()
	w := &watcher{r: r, load: r.load, versions: map[string]map[string]int64{}}
	ctx, cancel := context.WithCancel(r.t.Context())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		w.watch(ctx)
	}()
	if r.shape.withheld {
		r.withholdDuringCopy()
	}
	r.wait(time.Duration(r.random.IntN(1500)) * time.Millisecond)
	r.play()
	r.load.stop()
	v := r.settle()
	cancel()
	<-watching
	for _, s := range r.stages {
		s.finish()
		s.struck()
	}
	r.inspectLogs()
	return r.outcome(v, w)
}

// awaitSlot waits until there is one: where nothing is copied, what was committed before
// it is not replicated.
func (r *run) awaitSlot() bool {
	ctx, cancel := context.WithTimeout(r.t.Context(), endWithin)
	defer cancel()
	if _, err := r.confirmedReaches(ctx, 1, drainLooks); err != nil {
		r.problem(stuck, "there is no slot: %v", err)
		return false
	}
	return true
}

// settle heals what is left, waits until all is confirmed, and compares.
func (r *run) settle() *verdict {
	for _, p := range r.proxies {
		p.set(passing)
	}
	for _, s := range r.stages {
		s.disarm()
	}
	r.must("bring the sink up", r.sink.Up())
	r.note("everything is healed, %d transactions", r.load.count())
	looks := drainLooks
	if r.failed() {
		looks = failedLooks
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), endWithin)
	defer cancel()
	began := time.Now()
	_, err := r.confirmedReaches(ctx, 1, looks) // A slot may not have been made so far.
	var goal pglogrepl.LSN
	if err == nil {
		goal, err = r.mark(ctx)
	}
	if err != nil {
		r.problem(stuck, "mark the end: %v", err)
		return &verdict{}
	}
	at, err := r.confirmedReaches(ctx, goal, looks)
	remedied := err != nil && r.refusesWhatIsGone()
	if remedied {
		r.setAside()
		at, err = r.confirmedReaches(ctx, goal, looks)
	}
	if err != nil {
		r.problem(stuck, "the slot stands at %s %s after everything was healed, want %s", at, time.Since(began).Round(time.Second), goal)
		return &verdict{}
	}
	r.note("all is confirmed")
	if remedied {
		r.copyAnew(ctx)
	}
	if v := r.verdict(); !v.equal() {
		return v
	}
	// What a fault has held back may still arrive, and must change nothing.
	r.sink.Release()
	r.wait(150 * time.Millisecond)
	return r.verdict()
}

// verdict compares. Rows that are copied may come later than the changes that are
// confirmed, and what is published late is seen late.
func (r *run) verdict() *verdict {
	looks := int(r.invisibleFor() / lookEvery)
	if r.shape.existing {
		looks = copyLooks
	}
	for left, before := looks, 0; ; left-- {
		v, err := r.compare(r.t.Context())
		if err == nil && v.lost != before && r.shape.existing {
			left, before = looks, v.lost
		}
		if err == nil && !v.equal() && left == looks {
			r.note("still different: %d lost, %d duplicated, %d altered", v.lost, v.duplicated, v.altered)
		}
		late := left <= 0
		if err != nil && late {
			r.problem(broken, "%v", err)
			return &verdict{}
		}
		if err == nil && (v.equal() || late) {
			r.judge(v)
			return v
		}
		r.wait(lookEvery)
	}
}

func (r *run) judge(v *verdict) {
	for kind, n := range map[string]int{lost: v.lost, duplicated: v.duplicated, altered: v.altered} {
		if n > 0 {
			r.problem(kind, "%d in the comparison at the end:\n%s", n, strings.Join(v.first, "\n"))
		}
	}
}

// inspectLogs looks for what must never be in a log.
func (r *run) inspectLogs() {
	for _, s := range r.stages {
		text := s.log.String()
		for _, secret := range []string{sinkPassword, r.server.Password()} {
			if strings.Contains(text, secret) {
				r.problem(secrets, "a password is in the log of %s", s.name)
			}
		}
		for _, words := range []string{"panic:", "fatal error:", "report this as a bug"} {
			if i := strings.Index(text, words); i >= 0 {
				r.problem(exits, "%q is in the log of %s: %.1500s", words, s.name, text[i:])
			}
		}
	}
}

// outcome is what a run has shown.
type outcome struct {
	seed         uint64
	counts       map[string]map[string]int
	rows         int
	transactions int
	aborted      int
	samples      int
	peak         int64
	verdict      verdict
	problems     []problem
	took         time.Duration
}

func (r *run) outcome(v *verdict, w *watcher) *outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := &outcome{seed: r.seed, counts: r.counts, rows: v.rows, samples: w.samples, verdict: *v, problems: r.problems, took: time.Since(r.began)}
	if l := r.load; l != nil {
		l.mu.Lock()
		o.transactions, o.aborted = len(l.committed), l.failed
		l.mu.Unlock()
	}
	for _, s := range r.stages {
		o.peak = max(o.peak, s.peak)
	}
	return o
}

// String is one line.
func (o *outcome) String() string {
	faults := 0
	for _, n := range o.counts["fault"] {
		faults += n
	}
	verdict := "equal"
	if len(o.problems) > 0 {
		verdict = fmt.Sprintf("%d PROBLEMS, the first: %.160s", len(o.problems), o.problems[0].text)
	}
	for _, kind := range []string{"layout", "remedy"} {
		for name := range o.counts[kind] {
			verdict += "; " + name
		}
	}
	return fmt.Sprintf("seed %d, %s, %d faults, %d transactions, %d rows, %s", o.seed, o.took.Round(100*time.Millisecond), faults, o.transactions, o.rows, verdict)
}
