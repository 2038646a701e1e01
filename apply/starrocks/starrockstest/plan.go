package starrockstest

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// refusal is an error in StarRocks' own wording, which does not follow Go's conventions for error texts.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

const opColumn = "__op"

var labelPattern = regexp.MustCompile(`^[-\w]{1,128}$`)

// slot is one source column of a load.
type slot struct {
	name string
	typ  colType
	// col is the table column it fills, or -1 for __op and for names that only expressions use.
	col int
}

// loadPlan is what a load's headers mean against a table's schema.
type loadPlan struct {
	tbl    *table
	schema *schema
	slots  []slot
	byName map[string]int
	// opSlot is the slot of __op, or -1; constOp is 0 or 1 where __op is a constant, else -1.
	opSlot, constOp int
	// source gives for each schema column the slot that fills it, or -1 for its default.
	source  []int
	partial bool
	// condition is the schema column of merge_condition, or -1.
	condition int

	csv             bool
	stripOuterArray bool
	strict          bool
	trimSpace       bool
	skipHeader      int
	maxFilterRatio  float64
	columnSeparator string
	rowDelimiter    string
	varbinaryHex    bool
	ignoreJSONSize  bool
	timeout         time.Duration
}

// parseHeaders reads everything that does not need the table. It runs before the transaction begins.
func parseHeaders(h http.Header, v version) (*loadPlan, error) {
	p := &loadPlan{constOp: -1, opSlot: -1, condition: -1, varbinaryHex: !v.varbinaryBase64()}
	if err := p.parseFormat(h); err != nil {
		return nil, err
	}
	if err := refuseUnsupported(h, v); err != nil {
		return nil, err
	}
	var err error
	if p.strict, err = boolHeader(h, "strict_mode", "Invalid strict mode format. Must be bool type"); err != nil {
		return nil, err
	}
	if p.partial, err = boolHeader(h, "partial_update", "Invalid partial update flag format. Must be bool type"); err != nil {
		return nil, err
	}
	if p.partial && h.Get("merge_condition") != "" && !v.partialCondition() {
		return nil, refuse("Conditional update and partial update can not be used at the same time")
	}
	p.stripOuterArray = strings.EqualFold(h.Get("strip_outer_array"), "true")
	p.ignoreJSONSize = strings.EqualFold(h.Get("ignore_json_size"), "true")
	p.trimSpace = strings.EqualFold(h.Get("trim_space"), "true")
	return p, p.parseNumbers(h)
}

func (p *loadPlan) parseFormat(h http.Header) error {
	switch f := strings.ToLower(h.Get("format")); f {
	case "", "csv":
		p.csv = true
	case "json":
	case "gzip", "bzip2", "lz4", "deflate", "zstd":
		return refuse("unsupported by the stand-in: compressed CSV, format=%s", f)
	default:
		return refuse("unknown data format, format=%s", h.Get("format"))
	}
	var err error
	if p.columnSeparator, err = delimiter(h.Get("column_separator"), "\t"); err != nil {
		return err
	}
	p.rowDelimiter, err = delimiter(h.Get("row_delimiter"), "\n")
	return err
}

// delimiter decodes the "\x01" and "0x01" forms.
func delimiter(s, absent string) (string, error) {
	if s == "" {
		return absent, nil
	}
	if !strings.HasPrefix(s, `\x`) && !strings.HasPrefix(strings.ToLower(s), "0x") {
		s = strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\r`, "\r").Replace(s)
	} else {
		n, err := strconv.ParseUint(s[2:], 16, 8)
		if err != nil || len(s) != 4 {
			return "", refuse("Invalid delimiter '%s': delimiter is hexadecimal of one byte", s)
		}
		s = string([]byte{byte(n)})
	}
	if len(s) > 50 {
		return "", refuse("Delimiter '%s' is too long: at most 50 bytes", s)
	}
	return s, nil
}

// refuseUnsupported names headers that StarRocks knows and the stand-in does not: an error, never a guess.
func refuseUnsupported(h http.Header, v version) error {
	if h.Get("compression") != "" && h.Get("Content-Encoding") != "" {
		return refuse("Only one of http header content-encoding and compression can be set")
	}
	for _, name := range []string{
		"jsonpaths", "json_root", "where", "partitions", "temporary_partitions", "negative", "enclose", "escape",
		"compression", "Content-Encoding", "enable_merge_commit", "merge_commit_interval_ms",
	} {
		value := h.Get(name)
		if value == "" || strings.EqualFold(value, "false") || strings.EqualFold(value, "identity") {
			continue
		}
		if (name == "compression" || name == "Content-Encoding") && !v.jsonCompression() {
			// Versions before 3.2.7 know neither header and read the compressed bytes as data.
			continue
		}
		return refuse("unsupported by the stand-in: header %s", name)
	}
	switch mode := strings.ToLower(h.Get("partial_update_mode")); mode {
	case "", "row", "column", "auto":
	default:
		return refuse("Invalid partial update mode %s", mode)
	}
	return nil
}

func boolHeader(h http.Header, name, message string) (bool, error) {
	switch strings.ToLower(h.Get(name)) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, refuse("%s", message)
	}
}

func (p *loadPlan) parseNumbers(h http.Header) error {
	if s := h.Get("max_filter_ratio"); s != "" {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < 0 || f > 1 {
			return refuse("Invalid max_filter_ratio, must be between 0 and 1: %s", s)
		}
		p.maxFilterRatio = f
	}
	p.timeout = 600 * time.Second
	if s := h.Get("timeout"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			return refuse("Invalid timeout format")
		}
		if n < 1 || n > 259200 {
			return refuse("Invalid timeout: %d. Timeout should between 1 and 259200 seconds", n)
		}
		p.timeout = time.Duration(n) * time.Second
	}
	if s := h.Get("skip_header"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return refuse("Invalid csv load 'skip_header' format")
		}
		p.skipHeader = n
	}
	return nil
}

// bind resolves the columns against a table, as the front end's planner does once the transaction has begun.
func (p *loadPlan) bind(t *table, columns, condition string) error {
	p.tbl, p.schema = t, t.schema
	p.byName = make(map[string]int)
	p.source = make([]int, len(p.schema.columns))
	for i := range p.source {
		p.source[i] = -1
	}
	if p.partial && t.model != modelPrimary {
		return refuse("Partial update only support primary key table")
	}
	if strings.TrimSpace(columns) == "" {
		p.allColumns()
	} else if err := p.namedColumns(columns); err != nil {
		return err
	}
	if t.model == modelPrimary && p.opSlot < 0 && p.constOp < 0 && !p.csv {
		p.addSlot(opColumn, -1)
		p.opSlot = len(p.slots) - 1
	}
	if err := p.checkColumns(columns); err != nil {
		return err
	}
	return p.bindCondition(condition)
}

func (p *loadPlan) allColumns() {
	for i, c := range p.schema.columns {
		p.addSlot(c.name, i)
	}
}

func (p *loadPlan) addSlot(name string, col int) {
	typ := colType{kind: typeVarchar, length: varcharMaxBytes}
	switch {
	case col >= 0:
		typ = p.schema.columns[col].typ
		p.source[col] = len(p.slots)
		name = p.schema.columns[col].name
	case name == opColumn:
		typ = colType{kind: typeTinyint}
	}
	if _, ok := p.byName[name]; !ok {
		p.byName[name] = len(p.slots)
	}
	p.slots = append(p.slots, slot{name: name, typ: typ, col: col})
}

// checkColumns finds columns that the load leaves out although it may not.
func (p *loadPlan) checkColumns(columns string) error {
	for i, c := range p.schema.columns {
		if p.source[i] >= 0 && !(p.partial && strings.TrimSpace(columns) == "") {
			continue
		}
		if p.partial {
			if p.schema.isKey(i) {
				return refuse("key column %s not in partial update columns", c.name)
			}
			continue
		}
		if !c.nullable && !c.hasDefault && !c.defaultNow {
			return refuse("Column has no default value. column: %s", c.name)
		}
	}
	return nil
}

func (p *loadPlan) bindCondition(name string) error {
	if name == "" {
		return nil
	}
	i := p.schema.find(name)
	switch {
	case p.tbl.model != modelPrimary:
		return refuse("Conditional update only support primary key table")
	case i < 0:
		return refuse("Merge condition column %s does not exist", name)
	case p.schema.isKey(i):
		return refuse("Merge condition column %s should not be primary key!", name)
	case p.source[i] < 0:
		return refuse("Merge condition column %s is not in the columns of the load", name)
	}
	p.condition = i
	return nil
}
