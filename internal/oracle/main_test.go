package oracle_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Tests(m)) }
