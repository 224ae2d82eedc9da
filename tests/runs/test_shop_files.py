"""Files as shops and benchmarks export them, each with the manifest that a user would write.

The columns are those of the programs; the products and prompts are ours.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import rig

# https://help.shopify.com/en/manual/products/import-export/using-csv, before 2025
SHOPIFY_PRODUCTS: Final = (
    "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,"
    "Option1 Value,Option1 Linked To,Option2 Name,Option2 Value,Variant SKU,Variant Grams,"
    "Variant Inventory Tracker,Variant Inventory Policy,Variant Fulfillment Service,"
    "Variant Price,Variant Compare At Price,Variant Requires Shipping,Variant Taxable,"
    "Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,SEO Title,"
    "Variant Image,Variant Weight Unit,Included / United States,Price / International,Status"
)
# The same page since 2025
SHOPIFY_PRODUCTS_2025: Final = (
    "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,"
    "Status,SKU,Barcode,Option1 name,Option1 value,Option1 Linked To,Option2 name,Option2 value,"
    "Option2 Linked To,Option3 name,Option3 value,Option3 Linked To,Price,Compare-at price,"
    "Cost per item,Charge tax,Tax code,Unit price total measure,Inventory tracker,"
    "Inventory quantity,Continue selling when out of stock,Weight value (grams),"
    "Weight unit for display,Requires shipping,Fulfillment service,Product image URL,"
    "Image position,Image alt text,Variant image URL,Gift card,SEO title,SEO description,"
    "Color (product.metafields.shopify.color-pattern),"
    "Google Shopping / Google product category,Google Shopping / Custom label 0"
)
# https://help.shopify.com/en/manual/products/inventory/setup/inventory-csv
SHOPIFY_INVENTORY: Final = (
    "Handle,Title,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Option3 Name,"
    "Option3 Value,SKU,HS Code,COO,Location,Bin name,Incoming (not editable),"
    "Unavailable (not editable),Committed (not editable),Available (not editable),"
    "On hand (current),On hand (new)"
)


# https://github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema, with a byte order mark
WOOCOMMERCE: Final = (
    'ID,Type,SKU,"GTIN, UPC, EAN, or ISBN",Name,Published,"Is featured?","Visibility in catalog",'
    '"Short description",Description,"Tax status","In stock?",Stock,"Regular price",Categories,'
    'Tags,Images,Parent,Position,"Attribute 1 name","Attribute 1 value(s)","Attribute 1 visible",'
    '"Meta: _wpcom_is_markdown"'
)
# https://github.com/thirtybees/thirtybees, docs/csv_import; PrestaShop's sample differs in one name
THIRTY_BEES: Final = (
    "Product ID;Active (0/1);Name *;Categories (x,y,z...);Price tax excluded or Price tax included;"
    "Tax rules ID;On sale (0/1);Discount from (yyyy-mm-dd);Reference #;Supplier reference #;"
    "Short description;Description;Tags (x,y,z...);Available for order (0 = No, 1 = Yes);"
    "Image URLs (x,y,z...);Feature(Name:Value:Position);ID / Name of shop"
)
# https://experienceleague.adobe.com/docs/commerce-admin/systems/data-transfer/data-attributes-product.html
MAGENTO: Final = (
    "sku,store_view_code,attribute_set_code,product_type,categories,product_websites,name,"
    "description,short_description,weight,product_online,visibility,price,url_key,"
    "additional_attributes,qty"
)
# https://support.bigcommerce.com/s/article/Importing-Exporting-Products
BIGCOMMERCE: Final = (
    "Item Type,Product ID,Product Name,Product Type,Product Code/SKU,Brand Name,Option Set,"
    "Product Description,Price,Category,Product Image File - 1"
)
# The product data specification of the Google Merchant Center, as tab-separated text
GOOGLE: Final = (
    "id\ttitle\tdescription\tlink\timage link\tavailability\tprice\tgoogle product category\t"
    "item group id\tcolor"
)
# https://wiki.awin.com/index.php/Product_Feeds_for_Publishers, always compressed
AWIN: Final = (
    "aw_deep_link,product_name,aw_product_id,merchant_product_id,merchant_image_url,description,"
    "merchant_category,search_price,merchant_name,currency,language,last_updated,data_feed_id"
)


_HASH: Final = re.compile(r"-[0-9a-f]{12}$")


def export(header: str, *rows: dict[str, str]) -> str:
    """Return a table with all columns of a header, as a program writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header.split(","), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Case:
    """A file, the manifest without its provider, and the prompts by key.

    A key that is made of a prompt is without its hash.
    """

    file: str
    content: str | bytes
    manifest: str
    prompts: dict[str, str]


CASES: Final = {
    "products": Case(
        "products_export.csv",
        export(
            SHOPIFY_PRODUCTS,
            {
                "Handle": "linen-apron",
                "Title": "Linen apron",
                "Body (HTML)": "<p>Stone-washed,\n<b>two</b> pockets.</p>",
                "Vendor": "Björk & Söhne",
                "Published": "true",
                "Option1 Name": "Color",
                "Option1 Value": "Sand",
                "Variant SKU": "AP-1",
                "Variant Price": "39.00",
                "Image Src": "https://cdn.shopify.com/s/files/1/apron.jpg?v=1",
                "Image Position": "1",
                "Status": "active",
            },
            {"Handle": "linen-apron", "Option1 Value": "Moss", "Variant SKU": "AP-2"},
            {
                "Handle": "linen-apron",
                "Image Src": "https://cdn.shopify.com/s/files/1/apron-2.jpg?v=1",
                "Image Position": "2",
            },
            {
                "Handle": "gift-card",
                "Title": "Gift card",
                "Option1 Name": "Denominations",
                "Option1 Value": "$10",
                "Gift Card": "true",
                "Status": "draft",
            },
        ),
        "rows:\n"
        "  file: products_export.csv\n"
        "  fill: [title, body_html, option1_name, status]\n"
        "  where: option1_value and status == 'active'\n"
        'key: "{{ handle }}/{{ option1_value }}"\n'
        "prompt: >\n"
        "  {{ title }} in {{ option1_value | lower }}. {{ body_html | striptags }}\n",
        {
            "linen-apron/Sand": "Linen apron in sand. Stone-washed, two pockets.",
            "linen-apron/Moss": "Linen apron in moss. Stone-washed, two pockets.",
        },
    ),
    "products-2025": Case(
        "products_export_1.csv",
        export(
            SHOPIFY_PRODUCTS_2025,
            {
                "Title": "Wool throw",
                "URL handle": "wool-throw",
                "Description": "<p>130 x 170 cm</p>",
                "Vendor": "毛织",
                "Tags": "bed, sofa",
                "Published on online store": "TRUE",
                "Status": "Active",
                "SKU": "TH-1",
                "Barcode": "0012345678905",
                "Option1 name": "Color",
                "Option1 value": "Oat",
                "Price": "89.00",
                "Product image URL": "https://cdn.shopify.com/s/files/1/throw.jpg",
                "Image position": "1",
            },
            {"URL handle": "wool-throw", "SKU": "TH-2", "Option1 value": "Rust"},
            {
                "URL handle": "wool-throw",
                "Product image URL": "https://cdn.shopify.com/s/files/1/throw-2.jpg",
                "Image position": "2",
            },
            {
                "Title": "Clay pot",
                "URL handle": "clay-pot",
                "Status": "Active",
                "Option1 name": "Title",
                "Option1 value": "Default Title",
            },
            {
                "Title": "Old lamp",
                "URL handle": "old-lamp",
                "Status": "Archived",
                "SKU": "LA-1",
                "Option1 value": "Default Title",
            },
        ),
        "rows:\n"
        "  file: products_export_1.csv\n"
        "  fill: [title, description, status]\n"
        "  where: option1_value and status == 'Active'\n"
        "  allow_empty: [description]\n"
        "prompt: >\n"
        "  {{ title }}\n"
        "  {%- if option1_value != 'Default Title' %} in {{ option1_value }}{% endif %}.\n"
        "  {{ description | striptags }}\n",
        {
            "TH-1": "Wool throw in Oat. 130 x 170 cm",
            "TH-2": "Wool throw in Rust. 130 x 170 cm",
            "clay-pot": "Clay pot.",
        },
    ),
    "inventory": Case(
        "inventory_export_1.csv",
        export(
            SHOPIFY_INVENTORY,
            *(
                {
                    "Handle": "oak-stool",
                    "Title": "Oak stool",
                    "Option1 Name": "Size",
                    "Option1 Value": size,
                    "SKU": sku,
                    "HS Code": "940169",
                    "COO": "SE",
                    "Location": place,
                    "On hand (current)": count,
                }
                for size, sku in (("Small", "ST-S"), ("Large", "ST-L"))
                for place, count in (("Warehouse", "12"), ("Shop, Malmö", "not stocked"))
            ),
            {
                "Handle": "oak-bench",
                "Title": "Oak bench",
                "SKU": "BE-1",
                "Location": "Warehouse",
                "On hand (current)": "not stocked",
            },
        ),
        "rows:\n"
        "  file: inventory_export_1.csv\n"
        "  where: location == 'Warehouse' and on_hand_current | int > 0\n"
        'prompt: "{{ title }}, {{ option1_name | lower }} {{ option1_value | lower }}"\n',
        {"ST-S": "Oak stool, size small", "ST-L": "Oak stool, size large"},
    ),
    # https://imagen.research.google/: 200 prompts in the columns Prompts and Category
    "drawbench": Case(
        "drawbench.csv",
        export(
            "Prompts,Category",
            {"Prompts": "Two mugs on a stool.", "Category": "Counting"},
            {"Prompts": "A stool on a mug, and a cat, too.", "Category": "Positional"},
            {"Prompts": "A sign that says 'Hello, \"World\"'.", "Category": "Text"},
            {"Prompts": "Count of Bismarck-Schönhausen eats soup.", "Category": "Marcus et al. "},
        ),
        'rows: drawbench.csv\nprompt: "{{ prompts }}"\n'
        'output: {path: "{{ category }}/{{ key }}.{{ ext }}"}\n',
        {
            "two-mugs-on-a-stool": "Two mugs on a stool.",
            "a-stool-on-a-mug-and-a-cat-too": "A stool on a mug, and a cat, too.",
            "a-sign-that-says-hello-world": "A sign that says 'Hello, \"World\"'.",
            "count-of-bismarck-schönhausen-eats-soup": "Count of Bismarck-Schönhausen eats soup.",
        },
    ),
    "woocommerce": Case(
        "wc-product-export-1-1-2026-1.csv",
        (
            f"\ufeff{WOOCOMMERCE}\n"
            '44,variable,tee,,"V-neck tee",1,1,visible,A tee.,"Soft,\nlong.",taxable,1,,,'
            '"Clothing, Clothing > Tees",,https://x.test/v.jpg,,0,Color,"Blue, Red",1,1\n'
            '45,variation,tee-red,,"V-neck tee - Red",1,0,visible,,,taxable,1,,20,,,,tee,0,'
            'Color,Red,,\n46,variation,tee-blue,,"V-neck tee - Blue",1,0,visible,,,taxable,1,,'
            "20,,,,id:44,1,Color,Blue,,\n"
        ),
        "rows: {file: wc-product-export-1-1-2026-1.csv, where: \"type != 'variable'\"}\n"
        'prompt: "{{ name }}, {{ attribute_1_value_s | lower }}"\n',
        {"45": "V-neck tee - Red, red", "46": "V-neck tee - Blue, blue"},
    ),
    "thirtybees": Case(
        "products_import.csv",
        # Shorter rows than the header, as in the file that the program ships
        f"{THIRTY_BEES}\n"
        "1;1;Oak stool;Stools;100;1;0;2013-06-01;demo_1;RF-1;<p>Small.</p>;<p>Solid oak.</p>;"
        "oak, stool;1\n"
        "2;0;Clay pot;Pots;9;1;0;;demo_2;;;;;;http://x.test/2.jpg;Color:Red:1;1\n",
        "rows: {file: products_import.csv, where: \"active_0_1 == '1'\"}\n"
        'key: "{{ reference }}"\nprompt: "{{ name }}. {{ description | striptags }}"\n',
        {"demo_1": "Oak stool. Solid oak."},
    ),
    "prestashop": Case(
        "products_fr.csv",
        (
            f"{THIRTY_BEES}\r\n".replace(" or Price tax included", "")
            + "3;1;Chaise de café;Chaises,Maison;19,90;1;0;;demo_3;;;"
            '"<p>Chêne ""massif"".</p>";;1;;Couleur:Rouge:1;1\r\n'
        ).encode("cp1252"),
        "rows: {file: products_fr.csv, encoding: cp1252}\n"
        'key: "{{ reference }}"\nprompt: "{{ name }}. {{ description | striptags }}"\n',
        {"demo_3": 'Chaise de café. Chêne "massif".'},
    ),
    "magento": Case(
        "catalog_product.csv",
        f"{MAGENTO}\n"
        '24-MB01,,Bag,simple,"Default Category/Gear,Default Category/Gear/Bags",base,"Duffle bag",'
        '"<p>Ready for <b>sun</b>.</p>",,,1,"Catalog, Search",34.0000,duffle,'
        '"activity=Yoga|Gym,material=Canvas",100\n'
        "24-MB01,de,Bag,simple,,base,Reisetasche,,,,,,,,,\n",
        "rows: {file: catalog_product.csv, where: not store_view_code}\n"
        'prompt: "{{ name }}. {{ description | striptags }}"\n',
        {"24-MB01": "Duffle bag. Ready for sun."},
    ),
    "bigcommerce": Case(
        "products.csv",
        f"{BIGCOMMERCE}\n"
        'Product,77,"[Sample] Fog lamp",P,LAMP,OFS,,"<p>For <i>fog</i>.</p>",49.00,Shop,l.jpg\n'
        '"  SKU",,[S]Color=Blue,,LAMP-B,,,,,,\n"  Rule",,LAMP-B,,,,,,,,\n',
        "rows: {file: products.csv, where: item_type == 'Product'}\n"
        'key: "{{ product_code_sku }}"\n'
        'prompt: "{{ product_name }}. {{ product_description | striptags }}"\n',
        {"LAMP": "[Sample] Fog lamp. For fog."},
    ),
    "google": Case(
        "feed.tsv",
        f"{GOOGLE}\n"
        "A1\tLinen apron\tPockets\thttps://x.test/a\thttps://x.test/a.jpg\tin_stock\t39.00 USD\t"
        "Home & Garden > Linens\tG1\tSand\n"
        'A2\tLinen apron\tTwo "big" pockets\thttps://x.test/b\thttps://x.test/b.jpg\tin_stock\t'
        "39.00 USD\tHome & Garden > Linens\tG1\tMoss\n",
        'rows: feed.tsv\nprompt: "{{ title }} in {{ color | lower }}. {{ description }}"\n',
        {
            "A1": "Linen apron in sand. Pockets",
            "A2": 'Linen apron in moss. Two "big" pockets',
        },
    ),
    "awin": Case(
        "datafeed_1.csv.gz",
        gzip.compress(
            (
                f"{AWIN}\n"
                '"https://x.test/pclick.php?p=1&a=2",Oak stool,1001,ST-1,https://x.test/s.jpg,'
                '"Solid, small",Home,49.00,Shop,GBP,en,,77\n'
                '"https://x.test/pclick.php?p=2&a=2",Clay pot,1002,PO-1,https://x.test/p.jpg,,'
                "Garden,9.00,Shop,GBP,en,,77\n"
            ).encode()
        ),
        "rows: {file: datafeed_1.csv.gz, allow_empty: [description]}\n"
        'key: "{{ merchant_product_id }}"\nprompt: "{{ product_name }}. {{ description }}"\n',
        {"ST-1": "Oak stool. Solid, small", "PO-1": "Clay pot."},
    ),
    # Three lines of header: the template, names for people, names for programs
    "amazon": Case(
        "flat.file.chair.txt",
        (
            "TemplateType=fptcustom\tVersion=2021.0928\tTemplateSignature=Q0hBSVI=\t"
            "The top 3 rows are for Amazon.com use only.\t\n"
            "Product Type\tSeller SKU\tProduct Name\tBrand Name\tColor\n"
            "feed_product_type\titem_sku\titem_name\tbrand_name\tcolor_name\n"
            "chair\tCH-1\tCafé chair\tBjörk\tSand\nchair\tCH-2\tCafé chair\tBjörk\tMoss\n"
        ).encode("cp1252"),
        'rows: flat.file.chair.txt\nkey: "{{ item_sku }}"\n'
        'prompt: "{{ item_name }} in {{ color_name | lower }}"\n',
        {"CH-1": "Café chair in sand", "CH-2": "Café chair in moss"},
    ),
    # https://github.com/djghosh13/geneval
    "geneval": Case(
        "evaluation_metadata.jsonl",
        '{"tag": "counting", "include": [{"class": "clock", "count": 2}],'
        ' "exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}\n',
        'rows: evaluation_metadata.jsonl\nprompt: "{{ prompt }}"\n',
        {"a-photo-of-two-clocks": "a photo of two clocks"},
    ),
    # https://github.com/Karine-Huang/T2I-CompBench
    "compbench": Case(
        "color_val.txt",
        "a green cup and a blue jug\nA long, narrow shelf.\nThe clock reads 11:44.",
        'rows: color_val.txt\nprompt: "{{ prompt }}"\n',
        {
            "a-green-cup-and-a-blue-jug": "a green cup and a blue jug",
            "a-long-narrow-shelf": "A long, narrow shelf.",
            "the-clock-reads-11-44": "The clock reads 11:44.",
        },
    ),
    # https://github.com/google-research/parti: PartiPrompts.tsv
    "parti": Case(
        "PartiPrompts.tsv",
        "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tOne word\n"
        'a sign that says "Hello, World"\tWorld Knowledge\tWriting & Symbols\t\n',
        'rows: PartiPrompts.tsv\nprompt: "{{ prompt }}"\n',
        {
            "bond": "bond",
            "a-sign-that-says-hello-world": 'a sign that says "Hello, World"',
        },
    ),
    # https://github.com/AUTOMATIC1111/stable-diffusion-webui
    "styles": Case(
        "styles.csv",
        "\ufeffname,prompt,negative_prompt\nNone,,\n"
        'film,"film still of {prompt}, grain","(low quality:1.4)"\nonly negative,,"blurry, text"\n',
        'rows: {file: styles.csv, where: prompt}\nkey: "{{ name }}"\n'
        "prompt: \"{{ prompt | replace('{prompt}', 'a clay mug') }}\"\n",
        {"film": "film still of a clay mug, grain"},
    ),
}


def write(directory: Path, name: str, base_url: str) -> Path:
    case = CASES[name]
    content = case.content.encode() if isinstance(case.content, str) else case.content
    (directory / case.file).write_bytes(content)
    path = directory / f"{name}.yaml"
    provider = f"provider: {{name: local, base_url: {base_url!r}, api_key_env: CANARY_KEY}}\n"
    path.write_text(f"name: {name}\n{provider}{case.manifest}", encoding="utf-8")
    return path


def test_each_file_runs_with_its_manifest(served: rig.Endpoint, tmp_path: Path) -> None:
    paths = [write(tmp_path, name, served.base_url) for name in CASES]
    before = len(served.bill())
    rig.batchgen("run", *paths, cwd=tmp_path)
    bill = served.bill()[before:]
    rows = rig.query(
        tmp_path / "batchgen.db",
        "SELECT name, key, prompt, state FROM jobs JOIN batches ON batches.id = batch_id",
    )
    assert {row["state"] for row in rows} == {"done"}
    for name, case in CASES.items():
        found = {
            _HASH.sub("", row["key"]): row["prompt"].strip() for row in rows if row["name"] == name
        }
        assert found == case.prompts, name
    assert {place.name for place in (tmp_path / "out/drawbench").iterdir()} == {
        *("Counting", "Positional", "Text", "Marcus et al"),
    }
    assert sorted(row["prompt"] for row in bill) == sorted(row["prompt"] for row in rows)
    rig.batchgen("run", *paths, cwd=tmp_path)
    assert len(served.bill()) == before + len(bill), "an unchanged file was rebought"
