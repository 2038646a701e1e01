package starrockstest

import (
	"fmt"
	"strings"
	"time"
)

const (
	microsPerSecond = int64(1000000)
	microsPerDay    = 86400 * microsPerSecond
)

// daysFromCivil counts days since 1970-01-01 in the proleptic Gregorian calendar.
func daysFromCivil(year, month, day int) int64 {
	t := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	return t.Unix() / 86400
}

func daysInMonth(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func floorDiv(a, b int64) (q, r int64) {
	q, r = a/b, a%b
	if r < 0 {
		q, r = q-1, r+b
	}
	return q, r
}

func renderDate(days int64) string {
	t := time.Unix(days*86400, 0).UTC()
	return fmt.Sprintf("%04d-%02d-%02d", t.Year(), t.Month(), t.Day())
}

// renderDatetime shows microseconds only where they are not zero, and only on versions that show them at all.
func renderDatetime(micros int64, showMicros bool) string {
	sec, frac := floorDiv(micros, microsPerSecond)
	t := time.Unix(sec, 0).UTC()
	s := fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d", t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second())
	if frac != 0 && showMicros {
		s += fmt.Sprintf(".%06d", frac)
	}
	return s
}

// digits reads up to limit decimal digits and gives their value, count and the rest.
func digits(s string, limit int) (n, count int, rest string) {
	for count < limit && count < len(s) && s[count] >= '0' && s[count] <= '9' {
		n = n*10 + int(s[count]-'0')
		count++
	}
	return n, count, s[count:]
}

// civil is a parsed date and time of day.
type civil struct {
	year, month, day, hour, minute, second int
	micros                                 int64
}

func (c civil) valid() bool {
	return c.year >= 0 && c.year <= 9999 && c.month >= 1 && c.month <= 12 && c.day >= 1 && c.day <= daysInMonth(c.year, c.month) &&
		c.hour < 24 && c.minute < 60 && c.second < 60
}

func (c civil) toMicros() int64 {
	sec := int64(c.hour*3600 + c.minute*60 + c.second)
	return daysFromCivil(c.year, c.month, c.day)*microsPerDay + sec*microsPerSecond + c.micros
}

// expandYear widens a two-digit year: 00-69 is 2000-2069, 70-99 is 1970-1999.
func expandYear(year, count int) int {
	if count > 2 {
		return year
	}
	if year < 70 {
		return year + 2000
	}
	return year + 1900
}

// parseDatetime follows StarRocks: the date may stand alone, 'T' may separate the time, more than six fraction
// digits are cut, and what follows a complete time (a zone above all) is ignored without a word.
func parseDatetime(s string) (micros int64, ok bool) {
	c, ok := parseCivil(strings.TrimSpace(s))
	if !ok || !c.valid() {
		return 0, false
	}
	return c.toMicros(), true
}

// parseDate accepts what parseDatetime accepts and drops the time of day.
func parseDate(s string) (days int64, ok bool) {
	micros, ok := parseDatetime(s)
	if !ok {
		return 0, false
	}
	days, _ = floorDiv(micros, microsPerDay)
	return days, true
}

func parseCivil(s string) (c civil, ok bool) {
	var count int
	_, count, _ = digits(s, 15)
	if count == 8 || count == 14 || count == 6 || count == 12 {
		return parseCompact(s, count)
	}
	c.year, count, s = digits(s, 4)
	if count == 0 || (count != 2 && count != 4) {
		return c, false
	}
	c.year = expandYear(c.year, count)
	for _, field := range []*int{&c.month, &c.day} {
		if s == "" || (s[0] != '-' && s[0] != '/') {
			return c, false
		}
		if *field, count, s = digits(s[1:], 2); count == 0 {
			return c, false
		}
	}
	if s == "" {
		return c, true
	}
	if s[0] != ' ' && s[0] != 'T' {
		return c, false
	}
	return parseTimeOfDay(c, strings.TrimLeft(s[1:], " "))
}

func parseTimeOfDay(c civil, s string) (civil, bool) {
	var count int
	if c.hour, count, s = digits(s, 2); count == 0 || s == "" || s[0] != ':' {
		return c, false
	}
	if c.minute, count, s = digits(s[1:], 2); count == 0 {
		return c, false
	}
	if s == "" || s[0] != ':' {
		return c, s == ""
	}
	if c.second, count, s = digits(s[1:], 2); count == 0 {
		return c, false
	}
	if s != "" && s[0] == '.' {
		var frac int
		frac, count, _ = digits(s[1:], 6)
		for ; count < 6; count++ {
			frac *= 10
		}
		c.micros = int64(frac)
	}
	return c, true
}

// parseCompact reads YYYYMMDD, YYYYMMDDHHMMSS and their two-digit-year forms.
func parseCompact(s string, count int) (c civil, ok bool) {
	yearDigits := 4
	if count == 6 || count == 12 {
		yearDigits = 2
	}
	c.year, _, s = digits(s, yearDigits)
	c.year = expandYear(c.year, yearDigits)
	c.month, _, s = digits(s, 2)
	c.day, _, s = digits(s, 2)
	if count >= 12 {
		c.hour, _, s = digits(s, 2)
		c.minute, _, s = digits(s, 2)
		c.second, _, _ = digits(s, 2)
	}
	return c, true
}
