package starrockstest

import (
	"strings"
	"unicode/utf8"
)

const csvNull = `\N`

// runCSV reads records cut at the row delimiter. There is no quoting: \N is NULL, an empty field the empty string.
func (x *executor) runCSV(body string) error {
	p := x.plan
	for n := 0; body != ""; n++ {
		record, rest, _ := strings.Cut(body, p.rowDelimiter)
		body = rest
		if n < p.skipHeader {
			continue
		}
		if p.rowDelimiter == "\n" {
			record = strings.TrimSuffix(record, "\r")
		}
		if record == "" {
			continue
		}
		x.out.total++
		if err := x.record(record); err != nil {
			return err
		}
	}
	return nil
}

func (x *executor) record(record string) error {
	p := x.plan
	if !utf8.ValidString(record) {
		x.filter("Invalid UTF-8 row", record)
		return nil
	}
	if n := strings.Count(record, p.columnSeparator) + 1; n != len(p.slots) {
		x.filter(refuse("Target column count: %d doesn't match source value column count: %d. Column separator: '%s', Row delimiter: '%s'",
			len(p.slots), n, visible(p.columnSeparator), visible(p.rowDelimiter)).Error(), record)
		return nil
	}
	errs := rowErrors{plan: p}
	rest := record
	for i := range p.slots {
		var field string
		field, rest, _ = strings.Cut(rest, p.columnSeparator)
		if p.trimSpace {
			field = strings.TrimSpace(field)
		}
		x.vals[i] = null
		if field == csvNull {
			continue
		}
		v, err := convertText(p.slots[i].typ, field, convertOptions{csv: true, varbinaryHex: p.varbinaryHex})
		if err != nil {
			errs.unconvertible(i, field)
			continue
		}
		x.vals[i] = v
	}
	return x.row(record, errs.message)
}

func visible(s string) string {
	return strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(s)
}
