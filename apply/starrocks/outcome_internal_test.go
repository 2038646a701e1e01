package starrocks

import (
	"errors"
	"testing"
)

func TestAnswersAreJudgedByTheTable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		answer answer
		err    error
		want   verdict
	}{
		{answer{Status: "Success", NumberLoadedRows: 2}, nil, verdictCommitted},
		{answer{Status: "Success", NumberLoadedRows: 1}, nil, verdictCounters},
		{answer{Status: "Success", NumberLoadedRows: 3}, nil, verdictCounters},
		{answer{Status: "Success", NumberLoadedRows: 2, NumberFilteredRows: 1}, nil, verdictCounters},
		{answer{Status: "Success", NumberLoadedRows: 2, NumberUnselectedRows: 1}, nil, verdictCounters},
		{answer{Status: "Publish Timeout", NumberLoadedRows: 2}, nil, verdictUnpublished},
		{answer{Status: "Publish Timeout", NumberLoadedRows: 1}, nil, verdictCounters},
		{answer{Status: "Label Already Exists"}, nil, verdictDoubt},
		{answer{Status: "Fail", Message: "Label [x] has already been used."}, nil, verdictDoubt},
		{answer{Status: "Fail", Message: "too many filtered rows"}, nil, verdictRow},
		{answer{Status: "Fail", Message: "anything new"}, nil, verdictDoubt},
		{answer{Status: "FAILED", LowerMessage: "There is no 100-continue header"}, nil, verdictStop},
		{answer{Status: "Something New", NumberLoadedRows: 2}, nil, verdictDoubt},
		{answer{}, errors.New("connection reset"), verdictDoubt},
		{answer{}, &httpError{status: 401}, verdictStop},
		{answer{}, &httpError{status: 413}, verdictStop},
		{answer{}, &httpError{status: 429}, verdictDoubt},
		{answer{}, &httpError{status: 503}, verdictDoubt},
	} {
		if got, _ := judge(&request{rows: 2}, &test.answer, test.err); got != test.want {
			t.Errorf("%+v, error %v: verdict %d, want %d", test.answer, test.err, got, test.want)
		}
	}
}
