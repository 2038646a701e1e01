package starrockstest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// loadResult is the answer to a Stream Load.
type loadResult struct {
	txnID      int64
	label      string
	status     string
	existing   string
	message    string
	rows       loadRows
	ended      bool // the plan ran to its end, so the counters are filled
	loadBytes  int
	begun      time.Time
	finished   time.Time
	planTime   time.Duration
	readTime   time.Duration
	writeTime  time.Duration
	commitTime time.Duration
	errorURL   string
}

const (
	statusSuccess        = "Success"
	statusFail           = "Fail"
	statusPublishTimeout = "Publish Timeout"
	statusLabelExists    = "Label Already Exists"
)

// field is one key of an answer whose key order matters.
type field struct {
	key   string
	value any
}

// prettyJSON prints fields in order with four spaces, as StarRocks does.
func prettyJSON(fields []field) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		b.Write(jsonText(f.key))
		b.WriteString(": ")
		b.Write(jsonText(f.value))
	}
	b.WriteString("\n}")
	return b.Bytes()
}

// compactJSON prints fields in order on one line.
func compactJSON(fields []field) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(jsonText(f.key))
		b.WriteByte(':')
		b.Write(jsonText(f.value))
	}
	b.WriteByte('}')
	return b.Bytes()
}

func jsonText(v any) []byte {
	switch v := v.(type) {
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// Only numbers and strings come here, which always encode.
		return []byte(`""`)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (r *loadResult) fields(v version) []field {
	f := []field{{"TxnId", r.txnID}, {"Label", r.label}, {"Status", r.status}}
	if r.existing != "" {
		f = append(f, field{"ExistingJobStatus", r.existing})
	}
	var total, loaded, filtered int64
	if r.ended {
		total, loaded, filtered = r.rows.total, r.rows.loaded(), r.rows.filtered
	}
	f = append(
		f,
		field{"Message", r.message},
		field{"NumberTotalRows", total},
		field{"NumberLoadedRows", loaded},
		field{"NumberFilteredRows", filtered},
		field{"NumberUnselectedRows", 0},
		field{"LoadBytes", r.loadBytes},
		field{"LoadTimeMs", r.finished.Sub(r.begun).Milliseconds()},
		field{"BeginTxnTimeMs", 0},
		field{v.planTimeKey(), r.planTime.Milliseconds()},
		field{"ReadDataTimeMs", r.readTime.Milliseconds()},
		field{"WriteDataTimeMs", r.writeTime.Milliseconds()},
		field{"CommitAndPublishTimeMs", r.commitTime.Milliseconds()},
	)
	if r.errorURL != "" {
		f = append(f, field{"ErrorURL", r.errorURL})
	}
	return f
}

// restFields is the short answer of the front end's other calls; code and message came with 3.2.
func restFields(v version, status, code, msg string) []field {
	if !v.atLeast(3, 2, 0) {
		return []field{{"status", status}, {"msg", msg}}
	}
	message := msg
	if status == "OK" {
		message = "OK"
	}
	return []field{{"status", status}, {"code", code}, {"msg", msg}, {"message", message}}
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A client that went away is not the server's trouble: the outcome is in the label.
	_, _ = w.Write(body)
}
