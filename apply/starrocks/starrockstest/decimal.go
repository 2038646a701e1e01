package starrockstest

import (
	"math/big"
	"strconv"
	"strings"
)

var (
	largeintMax = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 127), big.NewInt(1))
	largeintMin = new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 127))
)

// splitDecimal reads [sign] digits [. digits] [e exponent] into an integer digit string and its scale.
func splitDecimal(s string) (negative bool, unscaled string, scale int, ok bool) {
	s = strings.TrimSpace(s)
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(strings.TrimPrefix(s[i+1:], "+"))
		if err != nil || e > 1000 || e < -1000 {
			return false, "", 0, false
		}
		exponent, s = e, s[:i]
	}
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" && frac == "" {
		return false, "", 0, false
	}
	for _, part := range []string{whole, frac} {
		for i := range len(part) {
			if part[i] < '0' || part[i] > '9' {
				return false, "", 0, false
			}
		}
	}
	unscaled = whole + frac
	scale = len(frac) - exponent
	if scale < 0 {
		unscaled += strings.Repeat("0", -scale)
		scale = 0
	}
	return negative, unscaled, scale, true
}

// parseDecimal converts to DECIMAL(precision, scale). Excess scale is rounded half away from zero without a word,
// an integer part that does not fit is an error.
func parseDecimal(s string, precision, scale int) (string, bool) {
	negative, unscaled, have, ok := splitDecimal(s)
	if !ok {
		return "", false
	}
	if have < scale {
		unscaled += strings.Repeat("0", scale-have)
	} else if cut := have - scale; cut > 0 {
		unscaled = roundDigits(unscaled, cut)
	}
	unscaled = strings.TrimLeft(unscaled, "0")
	if len(unscaled) > precision {
		return "", false
	}
	return formatUnscaled(negative, unscaled, scale), true
}

// roundDigits drops the last cut digits, rounding half away from zero.
func roundDigits(unscaled string, cut int) string {
	if len(unscaled) < cut {
		return "0"
	}
	kept, dropped := unscaled[:len(unscaled)-cut], unscaled[len(unscaled)-cut:]
	if dropped[0] < '5' {
		return kept
	}
	b := []byte("0" + kept)
	for i := len(b) - 1; ; i-- {
		if b[i] != '9' {
			b[i]++
			return string(b)
		}
		b[i] = '0'
	}
}

func formatUnscaled(negative bool, unscaled string, scale int) string {
	if len(unscaled) <= scale {
		unscaled = strings.Repeat("0", scale-len(unscaled)+1) + unscaled
	}
	text := unscaled
	if scale > 0 {
		text = unscaled[:len(unscaled)-scale] + "." + unscaled[len(unscaled)-scale:]
	}
	if negative && strings.Trim(unscaled, "0") != "" {
		return "-" + text
	}
	return text
}

// parseLargeint reads a 128-bit signed integer into canonical text.
func parseLargeint(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return strconv.FormatInt(n, 10), true
	}
	body := strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	if body == "" || strings.Trim(body, "0123456789") != "" {
		return "", false
	}
	n, ok := new(big.Int).SetString(strings.TrimPrefix(s, "+"), 10)
	if !ok || n.Cmp(largeintMax) > 0 || n.Cmp(largeintMin) < 0 {
		return "", false
	}
	return n.String(), true
}

// decimalText renders an exact rational at a scale, for sums and averages.
func decimalText(r *big.Rat, scale int) string { return r.FloatString(scale) }
