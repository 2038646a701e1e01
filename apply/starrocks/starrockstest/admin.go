package starrockstest

import (
	"encoding/json"
	"net/http"
)

// adminHandler serves faults and figures:
//
//	GET, POST, DELETE /faults   list, add one or a list, clear
//	POST /release               let go of what faults hold
//	POST /down, /up             ?part=fe (repeatable) close and open listeners
//	POST /evict-labels          apply the retention of labels, or ?db=&label= forget one
//	GET  /tables, /loads, /stats
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSONBody(w, s.Faults()) })
	mux.HandleFunc("POST /faults", s.adminAddFaults)
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		writeJSONBody(w, s.Faults())
	})
	mux.HandleFunc("POST /release", func(w http.ResponseWriter, _ *http.Request) {
		s.Release()
		writeJSONBody(w, s.Faults())
	})
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, r *http.Request) {
		s.Down(partsOf(r)...)
		writeJSONBody(w, partsOf(r))
	})
	mux.HandleFunc("POST /up", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Up(partsOf(r)...); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		writeJSONBody(w, partsOf(r))
	})
	mux.HandleFunc("POST /evict-labels", func(w http.ResponseWriter, r *http.Request) {
		if label := r.URL.Query().Get("label"); label != "" {
			s.EvictLabel(r.URL.Query().Get("db"), label)
		} else {
			s.EvictLabels()
		}
		writeJSONBody(w, s.Stats().Labels)
	})
	mux.HandleFunc("GET /tables", func(w http.ResponseWriter, _ *http.Request) { writeJSONBody(w, s.Stats().Tables) })
	mux.HandleFunc("GET /loads", func(w http.ResponseWriter, _ *http.Request) { writeJSONBody(w, s.Loads()) })
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSONBody(w, s.Stats()) })
	return mux
}

func partsOf(r *http.Request) []Part {
	var parts []Part
	for _, p := range r.URL.Query()["part"] {
		parts = append(parts, Part(p))
	}
	return parts
}

// adminAddFaults takes one fault or a list of them.
func (s *Server) adminAddFaults(w http.ResponseWriter, r *http.Request) {
	var raw json.RawMessage
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&raw); err != nil {
		http.Error(w, "decode faults: "+err.Error(), http.StatusBadRequest)
		return
	}
	var faults []Fault
	if err := json.Unmarshal(raw, &faults); err != nil {
		var one Fault
		if err := json.Unmarshal(raw, &one); err != nil {
			http.Error(w, "decode fault: "+err.Error(), http.StatusBadRequest)
			return
		}
		faults = []Fault{one}
	}
	if err := s.Script(faults...); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSONBody(w, s.Faults())
}

func writeJSONBody(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeBody(w, http.StatusOK, append(body, '\n'))
}
