package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/internal/config"
)

func TestTypeOverridesNameColumnsAsTablesDo(t *testing.T) {
	t.Parallel()
	cfg, _ := mustLoad(t, minimal(`SINK_TYPE_OVERRIDES=orders.total=text, sales.items.note = NULL ,"My.Shop"."It=em,s"."C""ol"=refuse,`))
	want := []config.TypeOverride{
		{Table: config.Table{Schema: "public", Name: "orders"}, Column: "total", Policy: "text"},
		{Table: config.Table{Schema: "sales", Name: "items"}, Column: "note", Policy: "null"},
		{Table: config.Table{Schema: "My.Shop", Name: "It=em,s"}, Column: `C"ol`, Policy: "refuse"},
	}
	if diff := cmp.Diff(want, cfg.SinkTypeOverrides); diff != "" {
		t.Errorf("overrides (-want +got):\n%s", diff)
	}
}

func TestEveryWrongTypeOverrideIsReported(t *testing.T) {
	t.Parallel()
	_, _, err := config.Load(minimal("SINK_TYPE_OVERRIDES=a.b=text,a.b=null,c=text,a.b.c.d=text,a.B=text,a.c,a.d=number"), config.Capture|config.Apply)
	if err == nil {
		t.Fatal("it is accepted")
	}
	for _, want := range []string{
		"column b of public.a is listed twice", `"c" does not name a column`, `"a.b.c.d" does not name a column`, `write "B" with double quotes`,
		`"a.c" is not an override`, `"number" is not a policy; want text, null, refuse`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}
