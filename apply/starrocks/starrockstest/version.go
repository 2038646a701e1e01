package starrockstest

import (
	"fmt"
	"strconv"
	"strings"
)

// version is the StarRocks version whose behaviour is shown.
type version struct {
	major, minor, patch int
}

func parseVersion(text string) (version, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return version{}, fmt.Errorf("parse version %q: want three numbers such as 3.3.15", text)
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 {
			return version{}, fmt.Errorf("parse version %q: want three numbers such as 3.3.15", text)
		}
		n[i] = v
	}
	return version{n[0], n[1], n[2]}, nil
}

func (v version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
}

func (v version) atLeast(major, minor, patch int) bool {
	if v.major != major {
		return v.major > major
	}
	if v.minor != minor {
		return v.minor > minor
	}
	return v.patch >= patch
}

// duplicateLabelBug tells whether a duplicate label is answered "Fail" instead of "Label Already Exists"
// (StarRocks issue 57982).
func (v version) duplicateLabelBug() bool {
	return v.major == 3 && ((v.minor == 3 && v.patch >= 6 && v.patch <= 13) || (v.minor == 4 && v.patch <= 3))
}

func (v version) fastSchemaEvolution() bool { return v.atLeast(3, 2, 0) }

func (v version) renameColumn() bool { return v.atLeast(3, 3, 2) }

func (v version) showsMicroseconds() bool { return v.atLeast(3, 3, 5) }

func (v version) varbinaryBase64() bool { return v.atLeast(3, 2, 0) }

func (v version) varbinary() bool { return v.atLeast(3, 0, 0) }

func (v version) jsonCompression() bool { return v.atLeast(3, 2, 7) }

// planTimeKey is the response key for the planning time, renamed in 3.1.
func (v version) planTimeKey() string {
	if v.atLeast(3, 1, 0) {
		return "StreamLoadPlanTimeMs"
	}
	return "StreamLoadPutTimeMs"
}

func (v version) maxDecimalPrecision() int {
	if v.atLeast(4, 0, 0) {
		return 76
	}
	return 38
}

// partialCondition: merge_condition in a load with partial_update.
func (v version) partialCondition() bool { return v.atLeast(3, 1, 3) }
