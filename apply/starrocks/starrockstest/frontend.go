package starrockstest

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// frontEnd is the FE's HTTP side: authentication, redirects, label states.
type frontEnd struct {
	srv *Server
}

// restPath cuts /api/... into its unescaped parts.
func restPath(r *http.Request) []string {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if u, err := url.PathUnescape(p); err == nil {
			parts[i] = u
		}
	}
	return parts
}

func (f *frontEnd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := restPath(r)
	switch {
	case len(parts) == 4 && parts[0] == "api" && parts[3] == "_stream_load":
		f.streamLoad(w, r, parts[1], parts[2])
	case len(parts) == 3 && parts[0] == "api" && parts[2] == "get_load_state":
		f.loadState(w, r, parts[1])
	case len(parts) == 4 && parts[0] == "api" && parts[3] == "_cancel":
		f.cancel(w, r, parts[1])
	case len(parts) == 2 && parts[0] == "api" && parts[1] == "health":
		writeBody(w, http.StatusOK, compactJSON([]field{{"online_backend_num", 1}, {"total_backend_num", 1}}))
	case len(parts) >= 2 && parts[0] == "api" && parts[1] == "transaction":
		writeBody(w, http.StatusOK, prettyJSON([]field{
			{"Status", "FAILED"}, {"Message", "unsupported by the stand-in: the transaction interface of Stream Load"},
		}))
	default:
		http.NotFound(w, r)
	}
}

func (f *frontEnd) streamLoad(w http.ResponseWriter, r *http.Request, db, table string) {
	w.Header().Set("Connection", "close")
	if r.Method != http.MethodPut {
		http.Error(w, "HTTP method is not allowed.", http.StatusMethodNotAllowed)
		return
	}
	fault := f.srv.faults.take(stageFE, db+"."+table, r.Header.Get("label"), "")
	switch {
	case fault.is(FaultFEHTTPError):
		http.Error(w, fault.message("stand-in fault"), fault.code(http.StatusServiceUnavailable))
		return
	case fault.is(FaultFEDown):
		f.srv.bounce(PartFE, time.Duration(fault.Delay))
		panic(http.ErrAbortHandler)
	}
	if !f.authorized(w, r, fault.is(FaultFE401)) {
		return
	}
	if r.ProtoAtLeast(1, 1) && !strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		f.noContinue(w)
		return
	}
	target := f.srv.bePublic()
	switch {
	case fault.is(FaultRedirect):
		target = fault.Location
	case fault.is(FaultRedirectLoop):
		target = f.srv.FEHTTP()
	}
	w.Header().Set("Location", "http://"+target+r.URL.RequestURI())
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// noContinue refuses a request that did not announce to wait for the redirect.
func (f *frontEnd) noContinue(w http.ResponseWriter) {
	if !f.srv.ver.atLeast(3, 3, 6) {
		writeBody(w, http.StatusOK, compactJSON([]field{{"status", "FAILED"}, {"msg", "There is no 100-continue header"}}))
		return
	}
	writeBody(w, http.StatusOK, prettyJSON([]field{
		{"Status", "FAILED"}, {"Message", "class com.starrocks.common.DdlException: There is no 100-continue header"},
	}))
}

func (f *frontEnd) authorized(w http.ResponseWriter, r *http.Request, refuseAnyway bool) bool {
	user, password, ok := r.BasicAuth()
	if ok && f.srv.checkPassword(user, password) && !refuseAnyway {
		return true
	}
	msg := "Need auth information."
	if ok {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		msg = "Access denied for " + accountName(user) + "@" + host
	}
	w.Header().Set("WWW-Authenticate", `Basic realm=""`)
	fields := restFields(f.srv.ver, "FAILED", "1", msg)
	writeBody(w, http.StatusUnauthorized, compactJSON(fields))
	return false
}

// accountName drops what follows '@', as StarRocks does for user@cluster.
func accountName(user string) string {
	name, _, _ := strings.Cut(user, "@")
	return name
}

func (f *frontEnd) loadState(w http.ResponseWriter, r *http.Request, db string) {
	if r.Method != http.MethodGet {
		http.Error(w, "HTTP method is not allowed.", http.StatusMethodNotAllowed)
		return
	}
	label := r.URL.Query().Get("label")
	if fault := f.srv.faults.take(stageState, db, label, ""); fault != nil {
		if fault.Delay <= 0 {
			http.Error(w, fault.message("stand-in fault"), fault.code(http.StatusServiceUnavailable))
			return
		}
		f.srv.pause(r.Context(), time.Duration(fault.Delay))
	}
	if !f.authorized(w, r, false) {
		return
	}
	if label == "" {
		writeBody(w, http.StatusOK, compactJSON(restFields(f.srv.ver, "FAILED", "1", "No label selected.")))
		return
	}
	state, reason, err := f.srv.store.labelState(db, label)
	if err != nil {
		writeBody(w, http.StatusOK, compactJSON(restFields(f.srv.ver, "FAILED", "1", err.Error())))
		return
	}
	if f.srv.faults.isForced(db, label, f.srv.opts.Now()) {
		state, reason = statePrepare.String(), ""
	}
	fields := []field{{"state", state}}
	if f.srv.ver.atLeast(3, 4, 0) {
		fields = append(fields, field{"reason", reason})
	}
	writeBody(w, http.StatusOK, compactJSON(append(fields, restFields(f.srv.ver, "OK", "0", "Success")...)))
}

func (f *frontEnd) cancel(w http.ResponseWriter, r *http.Request, db string) {
	if r.Method != http.MethodPost {
		http.Error(w, "HTTP method is not allowed.", http.StatusMethodNotAllowed)
		return
	}
	if !f.authorized(w, r, false) {
		return
	}
	if err := f.srv.store.cancel(db, r.URL.Query().Get("label")); err != nil {
		writeBody(w, http.StatusOK, compactJSON(restFields(f.srv.ver, "FAILED", "1", err.Error())))
		return
	}
	writeBody(w, http.StatusOK, compactJSON(restFields(f.srv.ver, "OK", "0", "Success")))
}
