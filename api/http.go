package api

import (
	"io"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// MetricsHandler serves the metrics of a pipeline and of the process in Prometheus'
// text form, for those who mount it themselves. It does not authenticate.
func MetricsHandler(pipeline Pipeline) http.Handler {
	return prometheusHandler(&sampler{pipeline: pipeline, timeout: DefaultStatusTimeout}, buildVersion())
}

func prometheusHandler(samples *sampler, version string) http.Handler {
	process := prometheus.NewRegistry()
	process.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := samples.take(r.Context())
		samples.remember(now)
		base := samples.base()
		pipeline := prometheus.NewRegistry()
		pipeline.MustRegister(&collector{now: now, lately: now.since(&base), version: version})
		promhttp.HandlerFor(prometheus.Gatherers{pipeline, process}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
}

// httpHandler is what METRICS_ADDR serves. /healthz and /readyz say yes or no to anyone;
// /metrics and profiles are protected as the gRPC calls are. Profiles are there only
// on loopback or behind a token: they show much and cost work.
func (s *Server) httpHandler() http.Handler {
	needCertificate := s.cfg.TLSClientCAFile != ""
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.gate.protect(prometheusHandler(s.samples, s.cfg.Version), needCertificate))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if st := s.status(r.Context()); !st.Ready() {
			say(w, http.StatusServiceUnavailable, "not ready")
			return
		}
		say(w, http.StatusOK, "ready")
	})
	if isLoopback(s.cfg.MetricsAddr) || s.cfg.Token != "" {
		profiles := http.NewServeMux()
		profiles.HandleFunc("/debug/pprof/", pprof.Index)
		profiles.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
		profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
		profiles.Handle(flightPath, s.flight)
		mux.Handle("/debug/", s.gate.protect(profiles, needCertificate))
	}
	return mux
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // The caller may have left.
}
