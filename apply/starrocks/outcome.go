package starrocks

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"unicode"
)

// verdict is what an answer, or none, means for a load.
type verdict uint8

const (
	// verdictDoubt: it may have committed; the label's state decides. A load that
	// is not committed then is sent again.
	verdictDoubt verdict = iota
	verdictCommitted
	// verdictUnpublished: committed, but queries may not see it yet.
	verdictUnpublished
	// verdictCounters: committed with other counts than were sent.
	verdictCounters
	// verdictRow: StarRocks refuses a row.
	verdictRow
	// verdictStop: no repetition can help.
	verdictStop
)

// policy is the table that decides about messages of loads that StarRocks has not
// accepted. Even then the label's state is asked for before anything else is done.
// What is not here is repeated.
var policy = []struct {
	contains string
	verdict  verdict
	hint     string
}{
	// A label that exists is ours and stands for these rows, but nothing says how many of
	// them were committed under it. Some versions call that a failure, StarRocks issue 57979.
	{"has already been used", verdictDoubt, ""},
	{"too many filtered rows", verdictRow, ""},
	{"primary key size exceed the limit", verdictRow, "shorten the key"},
	{"too many versions", verdictDoubt, ""},
	{"running txns on db", verdictDoubt, ""},
	{"unknown table", verdictStop, "restart dbmazz, which creates the table again, or create it"},
	{"unknown database", verdictStop, "create the database, or correct SINK_DATABASE"},
	{"has no default value", verdictStop, "make the column NULL, or give it a default"},
	{"not in partial update columns", verdictStop, "report this as a bug"},
	{"There is no 100-continue header", verdictStop, "a proxy before StarRocks removes the header Expect: use the address of a front end"},
	{"unknown data format", verdictStop, "report this as a bug"},
	{"is not a primary key table", verdictStop, "rename or drop the table, and restart dbmazz, which creates it anew"},
	{"Access denied", verdictStop, "check SINK_USER and SINK_PASSWORD, and the privileges of the user"},
}

// judge classifies an answer to a load.
func judge(r *request, a *answer, err error) (v verdict, hint string) {
	if err != nil {
		return judgeError(err), ""
	}
	switch a.Status {
	case "Success", "Publish Timeout":
		if a.NumberLoadedRows != r.rows || a.NumberFilteredRows != 0 || a.NumberUnselectedRows != 0 {
			return verdictCounters, ""
		}
		if a.Status == "Success" {
			return verdictCommitted, ""
		}
		return verdictUnpublished, ""
	}
	for _, p := range policy {
		if strings.Contains(a.message(), p.contains) {
			return p.verdict, p.hint
		}
	}
	return verdictDoubt, ""
}

func judgeError(err error) verdict {
	if IsPermanent(err) {
		return verdictStop
	}
	var status *httpError
	if errors.As(err, &status) && status.status < http.StatusInternalServerError {
		switch status.status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		default:
			return verdictStop
		}
	}
	return verdictDoubt
}

var quoted = regexp.MustCompile(`'[^']*'|"[^"]*"|\x60[^\x60]*\x60`)

// refusalText makes a line of StarRocks's error log fit for a log: the row goes, and so
// does everything that may be a value. Names of columns stay; the first one is returned.
func refusalText(line string, columns []column) (text, name string) {
	line, _, _ = strings.Cut(line, "Row: ")
	line = strings.TrimPrefix(strings.TrimSpace(line), "Error: ")
	text = quoted.ReplaceAllStringFunc(line, func(match string) string {
		inner := match[1 : len(match)-1]
		for i := range columns {
			if strings.EqualFold(columns[i].name, inner) {
				name = columns[i].name
				return match
			}
		}
		return "'?'"
	})
	words := strings.Fields(text)
	for i, word := range words {
		bare := strings.Trim(word, ".,:;()'\"`")
		if strings.ContainsFunc(bare, unicode.IsDigit) && !isColumn(columns, bare) && !isTypeName(bare) {
			words[i] = "?"
		}
	}
	return strings.TrimRight(strings.Join(words, " "), ". "), name
}

func isColumn(columns []column, name string) bool {
	for i := range columns {
		if strings.EqualFold(columns[i].name, name) {
			return true
		}
	}
	return false
}

var typeName = regexp.MustCompile(`^(DECIMAL|VARCHAR|CHAR|INT|BIGINT)\d*(\(\d+(,\d+)?\)?)?$`)

func isTypeName(word string) bool { return typeName.MatchString(word) }
