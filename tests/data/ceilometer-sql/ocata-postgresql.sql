-- What the SQL storage of Ceilometer 8.1.5 (Ocata) made of some messages in tests/data/ceilometer-polling, on PostgreSQL 15. The tables with
-- copies of the metadata, metadata_text and so on, are left out.
CREATE TABLE public.meter (
    id integer NOT NULL,
    name character varying(255) NOT NULL,
    type character varying(255),
    unit character varying(255)
);
CREATE SEQUENCE public.meter_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.meter_id_seq OWNED BY public.meter.id;
CREATE TABLE public.resource (
    internal_id integer NOT NULL,
    user_id character varying(255),
    project_id character varying(255),
    source_id character varying(255),
    resource_id character varying(255) NOT NULL,
    resource_metadata text,
    metadata_hash character varying(32)
);
CREATE SEQUENCE public.resource_internal_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.resource_internal_id_seq OWNED BY public.resource.internal_id;
CREATE TABLE public.sample (
    id integer NOT NULL,
    meter_id integer,
    resource_id integer,
    volume double precision,
    "timestamp" timestamp without time zone,
    recorded_at timestamp without time zone,
    message_signature character varying(64),
    message_id character varying(128)
);
CREATE SEQUENCE public.sample_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.sample_id_seq OWNED BY public.sample.id;
ALTER TABLE ONLY public.meter ALTER COLUMN id SET DEFAULT nextval('public.meter_id_seq'::regclass);
ALTER TABLE ONLY public.resource ALTER COLUMN internal_id SET DEFAULT nextval('public.resource_internal_id_seq'::regclass);
ALTER TABLE ONLY public.sample ALTER COLUMN id SET DEFAULT nextval('public.sample_id_seq'::regclass);
INSERT INTO public.meter VALUES (1, 'cpu', 'cumulative', 'ns');
INSERT INTO public.meter VALUES (2, 'disk.device.read.bytes', 'cumulative', 'B');
INSERT INTO public.meter VALUES (3, 'memory', 'gauge', 'MiB');
INSERT INTO public.resource VALUES (1, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '3e4045d5-b358-4dc7-ab06-c681e0c1e60f', '{"display_name": "qemu-kept-6b031732", "name": "cloud-00000009", "instance_id": "3e4045d5-b358-4dc7-ab06-c681e0c1e60f", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "cpu_number": 1}', '440b8c796d2d7edae7e0c42d00c64a13');
INSERT INTO public.resource VALUES (2, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '1dc390e9-43cd-451d-9ae7-01c8bbbe4cac', '{"display_name": "qemu-kept-6b031417", "name": "cloud-00000001", "instance_id": "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "cpu_number": 1}', 'c76bb50ea371ad3bf0a226059125f961');
INSERT INTO public.resource VALUES (3, 'u1', 'p1', 'openstack', 'ef2a4253-d195-4e59-bbd3-3dc512b6d2ee', '{"display_name": "web-1", "name": "instance-00000001", "instance_id": "ef2a4253-d195-4e59-bbd3-3dc512b6d2ee", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "cpu_number": 1}', 'a7f7abe93c6e877866a4cff7cfec594e');
INSERT INTO public.resource VALUES (4, 'u1', 'p1', 'openstack', 'fb245719-f287-42c1-9896-f66e2e0019db', '{"display_name": "web-1", "name": "instance-00000002", "instance_id": "fb245719-f287-42c1-9896-f66e2e0019db", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "cpu_number": 1}', '115bcba15218817a97e8fc2d47976fb8');
INSERT INTO public.resource VALUES (5, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '3e4045d5-b358-4dc7-ab06-c681e0c1e60f-vda', '{"display_name": "qemu-kept-6b031732", "name": "cloud-00000009", "instance_id": "3e4045d5-b358-4dc7-ab06-c681e0c1e60f", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "disk_name": "vda"}', '0b06dea93f2870a562ab9efdcbd09903');
INSERT INTO public.resource VALUES (6, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '1dc390e9-43cd-451d-9ae7-01c8bbbe4cac-vda', '{"display_name": "qemu-kept-6b031417", "name": "cloud-00000001", "instance_id": "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "disk_name": "vda"}', 'f32eb821e6746b5a72c7e1b32f411dc5');
INSERT INTO public.resource VALUES (7, 'u1', 'p1', 'openstack', 'ef2a4253-d195-4e59-bbd3-3dc512b6d2ee-vda', '{"display_name": "web-1", "name": "instance-00000001", "instance_id": "ef2a4253-d195-4e59-bbd3-3dc512b6d2ee", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "disk_name": "vda"}', 'b020cc743edfea8f16d1fc3e2bb8fc73');
INSERT INTO public.resource VALUES (8, 'u1', 'p1', 'openstack', 'fb245719-f287-42c1-9896-f66e2e0019db-vda', '{"display_name": "web-1", "name": "instance-00000002", "instance_id": "fb245719-f287-42c1-9896-f66e2e0019db", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1, "disk_name": "vda"}', '6ba8d0ddaf4c8ea0d7fbf972853e0ea3');
INSERT INTO public.resource VALUES (9, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '3e4045d5-b358-4dc7-ab06-c681e0c1e60f', '{"display_name": "qemu-kept-6b031732", "name": "cloud-00000009", "instance_id": "3e4045d5-b358-4dc7-ab06-c681e0c1e60f", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1}', '76174d44692d629ec2a1522acadf292b');
INSERT INTO public.resource VALUES (10, '4cc236f0eb364412abb1024bc6ffbdf3', 'b6e8cc20ee9c457e83f13218eca89c43', 'openstack', '1dc390e9-43cd-451d-9ae7-01c8bbbe4cac', '{"display_name": "qemu-kept-6b031417", "name": "cloud-00000001", "instance_id": "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac", "instance_type": "m1.tiny", "host": "f29e56a78905fa42fb74f7bc0f0d591d6ef1784414df24b35ceb3916", "instance_host": "compute-07", "flavor": {"id": "de87fb08-b0f4-429b-a6bf-e16487a3f79e", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "extra_specs": {}}, "status": "active", "state": "running", "task_state": "", "image": {"id": "6de405a4-cdeb-438c-92cb-3bb028091897"}, "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "image_ref_url": null, "image_meta": {"base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897", "container_format": "bare", "disk_format": "raw", "min_disk": "1", "min_ram": "0"}, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1}', 'a2ee98c5dee214fe8a7a167745c933d6');
INSERT INTO public.resource VALUES (11, 'u1', 'p1', 'openstack', 'ef2a4253-d195-4e59-bbd3-3dc512b6d2ee', '{"display_name": "web-1", "name": "instance-00000001", "instance_id": "ef2a4253-d195-4e59-bbd3-3dc512b6d2ee", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1}', '030525f62dcd9f7223d24264122518d7');
INSERT INTO public.resource VALUES (12, 'u1', 'p1', 'openstack', 'fb245719-f287-42c1-9896-f66e2e0019db', '{"display_name": "web-1", "name": "instance-00000002", "instance_id": "fb245719-f287-42c1-9896-f66e2e0019db", "instance_type": "m1.tiny", "host": "0cb4c83d72dd510f81b68a7c28588b3f4ade0d204cf2d643855ce3bc", "instance_host": "compute-07", "flavor": {"id": "1", "name": "m1.tiny", "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0}, "status": "active", "state": "running", "task_state": "", "image": null, "image_ref": null, "image_ref_url": null, "architecture": "x86_64", "os_type": "hvm", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "ephemeral_gb": 0, "root_gb": 1}', '4a23630f01fa54449d5106031e629c38');
INSERT INTO public.sample VALUES (1, 1, 1, 10760000000, '2026-11-22 17:00:59.701479', '2026-11-28 14:11:07.648265', '19b78a8fc7d1ee16f948d9469c18a143a1120aaf6f4a18123d96405b0f0f8ff9', '4aa5225a-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (2, 1, 2, 15230000000, '2026-11-22 17:00:59.701479', '2026-11-28 14:11:07.652173', 'b0cf4785d0856998bf3d83d3f0752ef2eb6039c2322d20a547e650948aa408a5', '4aa5250c-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (3, 1, 3, 28840000000, '2026-11-22 17:00:59.701479', '2026-11-28 14:11:07.659438', '8d4c05d25842e73f0027e90258297b09d46f69fc95aa897179856ec92e6f5cc8', '4aa5270a-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (4, 1, 4, 270000000, '2026-11-22 17:00:59.701479', '2026-11-28 14:11:07.667762', '501da5d75f5d39b2f7396bae0878c3e1b011fc72c50b35085748f6e19fd267f4', '4aa528c2-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (5, 2, 5, 512, '2026-11-22 17:00:59.703386', '2026-11-28 14:11:07.672212', 'c78ef8b773b8c8258ff1217e458cdc1eed1d3ab31dec5d0faba7a8d3fb1dc324', '4aa56ce2-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (6, 2, 6, 512, '2026-11-22 17:00:59.703386', '2026-11-28 14:11:07.680386', '620d3f0f1a8d96ae747e55d4966703840dca6f74fd271856cd1617ca7294fd1b', '4aa56f8a-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (7, 2, 7, 512, '2026-11-22 17:00:59.703386', '2026-11-28 14:11:07.686363', 'f5c7780e71c1e12730481479542ba90a5089c50d2ffa96683853263fa3f93bec', '4aa57188-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (8, 2, 8, 512, '2026-11-22 17:00:59.703386', '2026-11-28 14:11:07.692225', '0f866cb8ac14e00b3c214161bb760e94a91b93142ae5b4d0984f6bb15fd9ed08', '4aa57340-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (9, 3, 9, 64, '2026-11-22 17:00:59.647859', '2026-11-28 14:11:07.701126', 'b21b8485fcb9ac8a2155efee919cbae68697749023e0339221125a14e618556c', '4a9cfd32-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (10, 3, 10, 64, '2026-11-22 17:00:59.647859', '2026-11-28 14:11:07.710832', '8628b07802ce67b8550bab9a12ec7a084b0f1e97a6023ff02fc6f70d98175b68', '4a9d07fa-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (11, 3, 11, 64, '2026-11-22 17:00:59.647859', '2026-11-28 14:11:07.721678', 'fb273ca9a99ee930397d47f9e1742cd7644e41f1ca6b6e5986c3cfcf04d4ede0', '4a9d0a98-e696-11f1-98f6-02fc00000001');
INSERT INTO public.sample VALUES (12, 3, 12, 64, '2026-11-22 17:00:59.647859', '2026-11-28 14:11:07.731088', 'c4be9c605c6e045fe643ab7c695d67b966467ad401677f31d78474734b05a793', '4a9d0caa-e696-11f1-98f6-02fc00000001');
SELECT pg_catalog.setval('public.meter_id_seq', 3, true);
SELECT pg_catalog.setval('public.resource_internal_id_seq', 12, true);
SELECT pg_catalog.setval('public.sample_id_seq', 12, true);
ALTER TABLE ONLY public.meter
    ADD CONSTRAINT def_unique UNIQUE (name, type, unit);
ALTER TABLE ONLY public.meter
    ADD CONSTRAINT meter_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.resource
    ADD CONSTRAINT resource_pkey PRIMARY KEY (internal_id);
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT sample_pkey PRIMARY KEY (id);
CREATE INDEX ix_meter_name ON public.meter USING btree (name);
CREATE INDEX ix_resource_metadata_hash ON public.resource USING btree (metadata_hash);
CREATE INDEX ix_resource_resource_id ON public.resource USING btree (resource_id);
CREATE INDEX ix_sample_meter_id ON public.sample USING btree (meter_id);
CREATE INDEX ix_sample_meter_id_resource_id ON public.sample USING btree (meter_id, resource_id);
CREATE INDEX ix_sample_resource_id ON public.sample USING btree (resource_id);
CREATE INDEX ix_sample_timestamp ON public.sample USING btree ("timestamp");
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT sample_meter_id_fkey FOREIGN KEY (meter_id) REFERENCES public.meter(id);
ALTER TABLE ONLY public.sample
    ADD CONSTRAINT sample_resource_id_fkey FOREIGN KEY (resource_id) REFERENCES public.resource(internal_id);
