package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/trace"
	"strconv"
	"sync"
	"time"
)

const (
	// flightPath is where the recording is had.
	flightPath = "/debug/flightrecorder"
	// flightBytes bounds the memory of a recording, as a hint to the runtime.
	flightBytes = 16 << 20
	// FlightRecorderMax is the longest recording.
	FlightRecorderMax = time.Minute
	flightDefault     = 10 * time.Second
)

// flightRecorder keeps an execution trace of the last seconds, so that what was slow can be
// looked at after it was. The runtime allows one in a process.
type flightRecorder struct {
	log *slog.Logger

	mu  sync.Mutex // held while a recording is written too: the runtime writes one at a time
	now *trace.FlightRecorder
}

// start begins to record, or goes on with another length.
func (f *flightRecorder) start(length time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		f.now.Stop()
		f.now = nil
	}
	recorder := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: length, MaxBytes: flightBytes})
	if err := recorder.Start(); err != nil {
		return fmt.Errorf("start the flight recorder: %w", err)
	}
	f.now = recorder
	return nil
}

func (f *flightRecorder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		f.now.Stop()
		f.now = nil
	}
}

// run records from the beginning if it is configured, and ends recording with ctx. A
// process without a recording is better than none, so a failure is only told.
func (f *flightRecorder) run(ctx context.Context, length time.Duration) {
	if length > 0 {
		if err := f.start(length); err != nil {
			f.log.WarnContext(ctx, "flight recorder is off", "err", err)
		}
	}
	<-ctx.Done()
	f.stop()
}

// ServeHTTP implements http.Handler: GET is the recording, PUT begins one and DELETE ends
// it. Neither of the latter two is a request that a page of another site can have a browser make.
func (f *flightRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		length := flightDefault
		if text := r.URL.Query().Get("seconds"); text != "" {
			seconds, err := strconv.Atoi(text)
			if err != nil || seconds < 1 || time.Duration(seconds)*time.Second > FlightRecorderMax {
				say(w, http.StatusBadRequest, fmt.Sprintf("seconds: want 1 to %d", int(FlightRecorderMax.Seconds())))
				return
			}
			length = time.Duration(seconds) * time.Second
		}
		if err := f.start(length); err != nil {
			say(w, http.StatusConflict, err.Error())
			return
		}
		f.log.InfoContext(r.Context(), "flight recorder is on", "length", length)
		say(w, http.StatusOK, "recording the last "+length.String())
	case http.MethodDelete:
		f.stop()
		f.log.InfoContext(r.Context(), "flight recorder is off")
		say(w, http.StatusOK, "not recording")
	case http.MethodGet:
		f.write(w, r)
	default:
		w.Header().Set("Allow", "GET, PUT, DELETE")
		say(w, http.StatusMethodNotAllowed, "want GET, PUT or DELETE")
	}
}

func (f *flightRecorder) write(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now == nil {
		say(w, http.StatusNotFound, "nothing is recorded: begin with PUT "+flightPath+"?seconds=10, or start the process with FLIGHT_RECORDER_S")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Disposition", `attachment; filename="flight.out"`)
	if _, err := f.now.WriteTo(w); err != nil {
		// A part may be on its way already; it is no trace, and ends early.
		f.log.WarnContext(r.Context(), "flight recording could not be written", "err", err)
		panic(http.ErrAbortHandler)
	}
}
