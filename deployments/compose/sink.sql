-- The database and the user that dbmazz writes with. May run again.
CREATE DATABASE IF NOT EXISTS shop;
CREATE USER IF NOT EXISTS 'dbmazz' IDENTIFIED BY 'for-trying-out';
GRANT ALL ON DATABASE shop TO USER 'dbmazz';
GRANT ALL ON ALL TABLES IN DATABASE shop TO USER 'dbmazz';
-- For SHOW BACKENDS and SHOW FRONTENDS, by which dbmazz knows the addresses that may see its password.
GRANT OPERATE ON SYSTEM TO USER 'dbmazz';
