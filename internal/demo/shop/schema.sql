-- Every kind of row that a pipeline gets wrong easily: large values out of line, mixed-case
-- names, two tables of one name, composite and text keys, a table without changes of its own kind.
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'returned, "damaged"');

CREATE TABLE customers (
    id        bigint PRIMARY KEY,
    public_id uuid NOT NULL,
    name      text NOT NULL,
    note      text,
    active    boolean NOT NULL,
    joined_at timestamptz NOT NULL,
    seen_at   timestamptz,
    profile   jsonb NOT NULL,
    photo     text
);
ALTER TABLE customers ALTER COLUMN photo SET STORAGE EXTERNAL;

CREATE TABLE orders (
    id          bigint PRIMARY KEY,
    customer_id bigint NOT NULL,
    status      order_status NOT NULL,
    total       numeric(12, 2) NOT NULL,
    placed_at   timestamptz NOT NULL,
    shipped_on  date,
    remark      text
);

CREATE TABLE order_items (
    order_id bigint,
    line     integer,
    title    text NOT NULL,
    price    numeric(14, 4) NOT NULL,
    quantity smallint NOT NULL,
    PRIMARY KEY (order_id, line)
);

CREATE TABLE stock (
    sku      text PRIMARY KEY,
    quantity integer NOT NULL,
    moves    bigint NOT NULL
);

CREATE TABLE carts (
    token   uuid PRIMARY KEY,
    score   double precision,
    weight  real,
    tags    text[],
    address inet,
    payload bytea,
    expires interval,
    opened  time,
    ratio   numeric
);

CREATE SCHEMA "Archive";

CREATE TABLE "Archive".orders (
    id          bigint PRIMARY KEY,
    total       numeric(12, 2),
    archived_at timestamp NOT NULL,
    document    jsonb
);
ALTER TABLE "Archive".orders REPLICA IDENTITY FULL;

CREATE TABLE "Archive"."PriceHistory" (
    "Sku"      text,
    "ValidOn"  date,
    "Price"    numeric(10, 3),
    "Reason ?" text,
    PRIMARY KEY ("Sku", "ValidOn")
);
