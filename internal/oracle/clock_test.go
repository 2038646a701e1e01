package oracle_test

import (
	"fmt"
	"time"
)

func timeKinds() []kind {
	wildDates := texts([]string{
		"infinity", "-infinity", "4714-11-24 BC", "0001-12-31 BC", "0044-03-15 BC", "10000-01-01", "5874897-12-31", "99999-02-28",
	})
	// What rounds up at the end of the year 294276 gets a text that PostgreSQL prints but does not read.
	wildRounded := texts([]string{"infinity", "-infinity", "4714-11-24 00:00:00 BC", "10000-01-01 00:00:00", "294276-12-31 23:59:58.1", "0100-02-28 12:00:00 BC"})
	wildStamps := texts([]string{
		"infinity", "-infinity", "4714-11-24 00:00:00 BC", "0001-12-31 23:59:59.999999 BC", "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999",
		"12345-06-07 08:09:10.5", "0100-02-28 12:00:00 BC",
	})
	wildZoned := texts([]string{
		"infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "0001-12-31 23:59:59.999999+00 BC", "0001-01-01 00:00:00+01", "9999-12-31 23:59:59.5-01",
		"10000-01-01 00:00:00+00", "294276-12-31 23:59:59+00", "0001-01-01 12:00:00+15:59:59", "9999-12-31 23:00:00-02:00",
	})
	kinds := []kind{
		{name: "date", sql: "date", auto: "DATE", key: "DATE", tame: func(r rnd) value { return lit(dateText(r, 1, 9999)) }, wild: wildDates},
		{name: "ts", sql: "timestamp", auto: "DATETIME", key: "DATETIME", tame: stamps(6), wild: wildStamps},
		{name: "ts0", sql: "timestamp(0)", auto: "DATETIME", key: "DATETIME", tame: stamps(0), wild: wildRounded},
		{name: "ts3", sql: "timestamp(3)", auto: "DATETIME", key: "DATETIME", tame: stamps(3), wild: wildRounded},
		{name: "tstz", sql: "timestamptz", auto: "DATETIME", key: "DATETIME", tame: zonedStamps, wild: wildZoned},
		{name: "tstz2", sql: "timestamptz(2)", auto: "DATETIME", key: "DATETIME", tame: zonedStamps, wild: wildZoned},
		{name: "time", sql: "time", auto: "VARCHAR(32)", key: "VARCHAR(32)", tame: func(r rnd) value { return lit(clockText(r)) }},
		{name: "time0", sql: "time(0)", auto: "VARCHAR(32)", key: "VARCHAR(32)", tame: func(r rnd) value { return lit(clockText(r)) }},
		{name: "timetz", sql: "timetz", auto: "VARCHAR(32)", key: "VARCHAR(32)", tame: func(r rnd) value { return lit(clockText(r) + offset(r)) }},
		{name: "timetz3", sql: "timetz(3)", auto: "VARCHAR(32)", key: "VARCHAR(32)", tame: func(r rnd) value { return lit(clockText(r) + offset(r)) }},
		{name: "iv", sql: "interval", auto: "VARCHAR(128)", key: "VARCHAR(128)", tame: intervals},
		{name: "iv3", sql: "interval(3)", auto: "VARCHAR(128)", key: "VARCHAR(128)", tame: intervals},
		{name: "ivym", sql: "interval year to month", auto: "VARCHAR(128)", key: "VARCHAR(128)", tame: intervals},
		{name: "ivds", sql: "interval day to second", auto: "VARCHAR(128)", key: "VARCHAR(128)", tame: intervals},
	}
	return kinds
}

func dateText(r rnd, low, high int) string {
	if low == 1 && r.in(20) {
		return pick(r, "0001-01-01", "9999-12-31", "1970-01-01", "1969-12-31", "2000-02-29", "1900-02-28", "1582-10-10", "0099-12-31", "0999-01-01", "1000-01-01", "2038-01-19", "2024-02-29")
	}
	if r.in(60) {
		low, high = 1950, 2060
	}
	return time.Date(r.between(low, high), time.January, 1+r.IntN(365), 0, 0, 0, 0, time.UTC).Format("2006-01-02")
}

// clockText draws a time of day, 24:00 and leap seconds among them.
func clockText(r rnd) string {
	if r.in(25) {
		return pick(r, "00:00:00", "24:00:00", "23:59:59.999999", "23:59:59.9999996", "23:59:60", "12:59:60", "00:00:00.000001", "12:00:00.5", "01:02:03.100", "12:34", "00:00:00.0000004")
	}
	text := fmt.Sprintf("%02d:%02d:%02d", r.IntN(24), r.IntN(60), r.IntN(60))
	if n := r.IntN(7); n > 0 {
		text += "." + digits(r, n)
	}
	return text
}

func offset(r rnd) string {
	return pick(r, "", "Z", "+00", "+02", "-07", "+05:30", "-09:30", "+14", "-12", "+15:59:59", "-15:59:59", "+00:00:01", "-00:30")
}

// stamps draws timestamps up to the year 9999. Rounding to fewer than six digits must not lead beyond it.
func stamps(precision int) gen {
	edges := []string{"1970-01-01 00:00:00", "1969-12-31 23:59:59.999999", "2024-02-29 24:00:00", "2016-12-31 23:59:60", "0001-01-01 00:00:00", "1999-12-31 23:59:59.9999996", "epoch"}
	if precision == 6 {
		edges = append(edges, "9999-12-31 23:59:59.999999", "9999-12-31 00:00:00.1")
	}
	return texts(edges,
		func(r rnd) value { return lit(dateText(r, 2, 9998) + " " + clockText(r)) },
		func(r rnd) value { return lit(dateText(r, 2, 9998) + "T" + clockText(r)) },
		func(r rnd) value {
			return expr(fmt.Sprintf("timestamp '2000-01-01' + %d * interval '1 second' + interval '%d microseconds'", r.Int64N(1<<r.between(2, 37)), r.IntN(1e6)))
		})
}

func zonedStamps(r rnd) value {
	if r.in(15) {
		return lit(pick(r, "1970-01-01 00:00:00+00", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.99+00", "2024-03-10 02:30:00 America/New_York",
			"2024-11-03 01:30:00 America/New_York", "1883-11-18 12:03:57 America/New_York", "1900-01-01 00:00:00 Europe/Amsterdam", "2011-12-30 10:00:00 Pacific/Apia", "epoch"))
	}
	zone := offset(r)
	if r.in(20) {
		zone = pick(r, " America/New_York", " Asia/Kathmandu", " Europe/London", " Australia/Lord_Howe", " UTC", " Pacific/Kiritimati")
	}
	return lit(dateText(r, 2, 9998) + " " + clockText(r) + zone)
}

func intervals(r rnd) value {
	switch r.IntN(6) {
	case 0:
		edges := []string{
			"0", "1 day", "-1 day", "24 hours", "1 mon", "-1 mon +1 day -00:00:00.000001", "178000000 years", "-178000000 years", "1 year -1 mon", "00:00:00.000001",
			"-00:00:00.000001", "100000 days", "2147483647 days", "-2147483648 days", "1 week", "P1Y2M3DT4H5M6.7S", "1-2 3 4:05:06.7", "-0.5 days", "1.5 months", "100000000 hours",
		}
		if r.major >= 17 {
			edges = append(edges, "infinity", "-infinity")
		}
		return lit(pick(r, edges...))
	case 1:
		return expr(fmt.Sprintf("age(timestamp '%s 00:00', timestamp '%s %s')", dateText(r, 2, 9998), dateText(r, 2, 9998), clockText(r)))
	}
	return lit(fmt.Sprintf("%d years %d mons %d days %d hours %d mins %d.%s secs", r.between(-20, 20), r.between(-20, 20), r.between(-400, 400),
		r.between(-100, 100), r.between(-100, 100), r.between(-100, 100), digits(r, r.between(1, 6))))
}
